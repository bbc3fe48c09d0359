//! The images that a build needs, found several at once: while one registry takes its time, another may be asked.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::BuildEvent;
use super::course::find_image;
use super::error::Trouble;
use super::execute::{Build, Message};
use super::graph;
use super::instruction::Dockerfile;
use crate::id::ImageId;
use crate::image::{Image, ImageConfig, Platform, Reference};

/// An image that is wanted: its name, and the platform it is to be for.
type Wanted = (Reference, Option<Platform>);

/// What came of looking for the images.
#[derive(Default)]
pub(crate) struct Bases(BTreeMap<String, Result<Image, Trouble>>);

/// How many are looked for at once; each brings several layers at once itself.
const AT_ONCE: usize = 3;

// === impl Bases ===

impl Bases {
    /// Looks for all images that the Dockerfile alone says are needed, if there are several.
    pub(crate) fn find(
        build: &Build<'_>,
        dockerfile: &Dockerfile,
        target: (usize, bool),
        channel: (&Sender<Message>, &Receiver<Message>),
        events: &mut dyn FnMut(BuildEvent),
    ) -> Self {
        let wanted = wanted(build, dockerfile, target);
        // The first failure ends the build: what nobody has looked for until then need not be.
        let (todo, found) = (Mutex::new(wanted), Mutex::new(Self::default()));
        let count = open(&todo).len();
        if count < 2 {
            return Self::default();
        }
        let (sender, receiver) = channel;
        let work = || {
            loop {
                let Some((reference, platform)) = open(&todo).pop() else { break };
                let image = find_image(build, &reference, platform.as_ref());
                if image.is_err() {
                    open(&todo).clear();
                }
                open(&found).0.insert(key(&reference, platform.as_ref()), image);
            }
        };
        std::thread::scope(|scope| {
            let mut running = count.min(AT_ONCE);
            for _ in 0..running {
                let (sender, work) = (sender.clone(), &work);
                scope.spawn(move || {
                    work();
                    // The receiver lives until every worker has ended.
                    let _ = sender.send(Message::Ended(Ok(())));
                });
            }
            while running > 0 {
                match receiver.recv() {
                    Ok(Message::Event(event)) => events(event),
                    Ok(Message::Ended(_)) => running -= 1,
                    Err(_) => break,
                }
            }
        });
        found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of looking for this one, if it was looked for. It is told once.
    pub(crate) fn take(
        &mut self,
        reference: &Reference,
        platform: Option<&Platform>,
    ) -> Option<Result<Image, Trouble>> {
        self.0.remove(&key(reference, platform))
    }
}

/// The images that a plan asks for when all of them are there and none has triggers, in reverse: the first one is the
/// last. Nothing when there is no such plan, which is for the real one to tell.
fn wanted(build: &Build<'_>, dockerfile: &Dockerfile, target: (usize, bool)) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let mut rehearse = |reference: &Reference, platform: Option<&Platform>| {
        wanted.push((reference.clone(), platform.cloned()));
        Ok(Image {
            id: ImageId::of(b""),
            references: Vec::new(),
            digests: Vec::new(),
            part_of: Vec::new(),
            config: ImageConfig::default(),
            size: 0,
        })
    };
    let plan = graph::plan(dockerfile, build.request, &build.globals, target, &mut rehearse);
    if plan.is_err() {
        wanted.clear();
    }
    wanted.reverse();
    wanted
}

fn key(reference: &Reference, platform: Option<&Platform>) -> String {
    format!("{reference} {}", platform.map(Platform::to_string).unwrap_or_default())
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
