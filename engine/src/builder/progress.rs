//! stub
#[derive(Default)]
pub struct Plain;
impl Plain {
    pub fn text(&mut self, _: &super::BuildEvent) -> String {
        String::new()
    }
}
