//! stub
use crate::container::exec::ExecSpec;
use crate::container::spec::Grace;
use crate::error::Result;
use crate::id::ContainerId;
use crate::paths::Root;
use crate::signal::Signal;
#[derive(Debug)]
pub struct Connection;
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
    pub sig_proxy: bool,
    pub detach_keys: Option<String>,
}
#[derive(Debug)]
pub enum AttachEnd {
    Exited(i32),
    Detached,
}
pub fn spawn_monitor(_: &Root, _: &ContainerId) -> Result<Connection> {
    unimplemented!()
}
pub fn connect(_: &Root, _: &ContainerId) -> Result<Option<Connection>> {
    unimplemented!()
}
impl Connection {
    pub fn started(&mut self) -> Result<()> {
        unimplemented!()
    }
    pub fn attach(self, _: &AttachOptions) -> Result<AttachEnd> {
        unimplemented!()
    }
    pub fn follow(self, _: &mut dyn FnMut(crate::builder::Stream, &[u8])) -> Result<i32> {
        unimplemented!()
    }
    pub fn stop(&mut self, _: Option<Signal>, _: Option<Grace>) -> Result<()> {
        unimplemented!()
    }
    pub fn kill(&mut self, _: Signal) -> Result<()> {
        unimplemented!()
    }
    pub fn pause(&mut self) -> Result<()> {
        unimplemented!()
    }
    pub fn unpause(&mut self) -> Result<()> {
        unimplemented!()
    }
    pub fn wait_exit(&mut self) -> Result<i32> {
        unimplemented!()
    }
    pub fn wait_healthy(&mut self) -> Result<()> {
        unimplemented!()
    }
    pub fn exec(self, _: &ExecSpec, _: &AttachOptions) -> Result<AttachEnd> {
        unimplemented!()
    }
    pub fn exec_detached(self, _: &ExecSpec) -> Result<()> {
        unimplemented!()
    }
}
