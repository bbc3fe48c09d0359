//! stub
pub fn remove(_: &str) -> crate::Result<()> {
    unimplemented!()
}
pub fn login(_: &str, _: &str, _: &str) -> crate::Result<()> {
    unimplemented!()
}
