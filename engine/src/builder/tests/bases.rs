//! Images from registries, asked for together.

use std::sync::Condvar;

use super::*;

/// A registry that answers when it was asked for so many images at once.
struct Slow {
    root: Root,
    asked: Mutex<Vec<String>>,
    more: Condvar,
    at_once: usize,
}

impl Runner for Slow {
    fn run(&self, _: &RunStep, _: &mut dyn FnMut(Stream, &[u8])) -> crate::Result<i32> {
        Ok(0)
    }

    fn prompt(&self, _: &RunStep) -> crate::Result<()> {
        Ok(())
    }

    fn pull(
        &self,
        reference: &Reference,
        _: Option<&Platform>,
        _: &mut dyn FnMut(&str),
    ) -> crate::Result<()> {
        let mut asked = self.asked.lock().unwrap();
        asked.push(reference.to_string());
        self.more.notify_all();
        let patience = Duration::from_secs(30);
        let too_few = |asked: &mut Vec<String>| asked.len() < self.at_once;
        let (asked, waited) = self.more.wait_timeout_while(asked, patience, too_few).unwrap();
        drop(asked);
        if waited.timed_out() || reference.to_string().contains("missing") {
            return Err(crate::Error::not_found(format!("image {reference} not found")));
        }
        let dockerfile = DockerfileSource::Inline(format!("FROM scratch\nLABEL of={reference}\n"));
        let request =
            BuildRequest { dockerfile, tags: vec![reference.clone()], ..BuildRequest::of(self.root.state()) };
        build(&self.root, &Script::default(), &request, &mut |_| ()).map(drop)
    }
}

fn slow(world: &World, at_once: usize) -> Slow {
    Slow { root: world.root.clone(), asked: Mutex::default(), more: Condvar::new(), at_once }
}

const DOCKERFILE: &str = "FROM example.com/a:1 AS a\nFROM example.com/unused:1\n\
    FROM example.com/b:1\nCOPY --from=a . /\nCOPY --from=example.com/c:1 . /\nCOPY --from=example.com/c:1 / /again\n";

#[test]
fn several_images_are_asked_for_at_once_and_each_once() {
    let world = World::new();
    let runner = slow(&world, 3);
    let mut loads = Vec::new();
    let images = build(&world.root, &runner, &world.request(DOCKERFILE), &mut |event| {
        if let BuildEvent::Started { name, .. } = event {
            loads.extend(name.strip_prefix("[internal] load metadata for ").map(str::to_owned));
        }
    });
    assert_eq!(images.unwrap()[0].config.config.labels["of"], "example.com/b:1");
    loads.sort();
    let wanted = ["example.com/a:1", "example.com/b:1", "example.com/c:1"];
    assert_eq!(loads, wanted);
    let mut asked = runner.asked.into_inner().unwrap();
    asked.sort();
    assert_eq!(asked, wanted);
}

#[test]
fn an_image_that_is_not_there_is_told_of_at_its_line() {
    let world = World::new();
    let dockerfile = DOCKERFILE.replace("c:1", "missing:1");
    let error = build(&world.root, &slow(&world, 1), &world.request(&dockerfile), &mut |_| ()).unwrap_err();
    let error = crate::error::chain(&error);
    assert!(error.contains("Dockerfile:5") && error.contains("example.com/missing:1 not found"), "{error}");
}
