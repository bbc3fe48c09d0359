//! stub
pub use crate::container::stdio::Stream;
#[derive(Debug)]
pub struct LogLine {
    pub time: String,
    pub log: String,
    pub stream: Stream,
}
#[derive(Debug)]
pub struct LogOptions {
    pub follow: bool,
    pub tail: Option<usize>,
    pub since: Option<jiff::Timestamp>,
    pub until: Option<jiff::Timestamp>,
}
pub fn parse_moment(_: &str) -> Result<jiff::Timestamp, crate::Error> {
    unimplemented!()
}
pub fn read(
    _: &crate::Root,
    _: &crate::id::ContainerId,
    _: &LogOptions,
    _: &mut dyn FnMut(&LogLine),
) -> crate::Result<()> {
    unimplemented!()
}
