//! The error every verb of the engine returns: a kind users can act on, one sentence, its sources and a hint.

use std::fmt;
use std::io;

/// What went wrong, in classes that decide exit codes and hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No such container, image, network or volume.
    NotFound,
    /// A name, port or resource is taken, or the thing is in the wrong state for the verb.
    Conflict,
    /// The request makes no sense as written.
    Invalid,
    /// This kernel or this engine cannot do it.
    Unsupported,
    /// A registry refused the credentials or the permission is missing.
    Denied,
    /// The command of a container was found but cannot be executed: exit code 126.
    NotExecutable,
    /// The command of a container was not found: exit code 127.
    CommandNotFound,
    /// Everything else: the system refused a step.
    Failed,
}

/// A failure of the engine. Displays its own sentence only; walk [`std::error::Error::source`] for the causes.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What every verb of the engine returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

// === impl Error ===

impl Error {
    /// A failure of this kind, in one lower-case sentence that names the step and the object.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// The same failure as one of another kind.
    #[must_use]
    pub fn with_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// As the failure of an `exec`: what keeps the program from being executed ends like one that cannot be, as with docker.
    #[must_use]
    pub fn of_execution(self) -> Self {
        match self.kind {
            Kind::Invalid | Kind::Failed => self.with_kind(Kind::NotExecutable),
            _ => self,
        }
    }

    /// No such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Taken, or in the wrong state.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// Not a request that makes sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// A step that the system refused, with the system's reason.
    pub fn failed(
        step: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::new(Kind::Failed, step).with_source(source)
    }

    /// The same failure with its cause.
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let source = source.into();
        if self.hint.is_none() && is_full(&*source) {
            self.hint =
                Some("the disk is full; `rengine system df` tells what is kept, and what can go".to_owned());
        }
        self.source = Some(source);
        self
    }

    /// The same failure with a sentence on what to do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with a sentence on what to do about it, if there is one.
    pub fn with_hint_if(self, hint: Option<impl Into<String>>) -> Self {
        match hint {
            Some(hint) => self.with_hint(hint),
            None => self,
        }
    }

    /// The class.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// Whether a failure comes from too little room on a disk.
pub(crate) fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)) {
            return true;
        }
        next = error.source();
    }
    false
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as &(dyn std::error::Error + 'static))
    }
}

/// An error and its causes on one line, `a: b: c`, without saying the same thing twice.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_however_deep_it_is() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let deep = Error::failed("pull the image", Error::failed("write the blob", full()));
        assert!(deep.hint().is_some_and(|hint| hint.contains("system df")));
        let known = Error::invalid("no room").with_hint("elsewhere").with_source(full());
        assert_eq!(known.hint(), Some("elsewhere"));
        assert_eq!(Error::failed("write", io::Error::from(io::ErrorKind::NotFound)).hint(), None);
    }
}
