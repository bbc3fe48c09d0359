//! What goes wrong, and when: decided by a seed, the request, and how often that request came before. Never by time or by the order
//! of connections, so that a seed means the same each time.

use std::hash::{DefaultHasher, Hash, Hasher};

/// How one registry misbehaves.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    /// What is wrong for good, if anything is.
    pub(crate) lie: Option<Lie>,
    /// How many requests of a hundred go wrong in passing.
    percent: u64,
    /// Whether blobs are kept on another host, where credentials have no business.
    pub(crate) redirects: bool,
    /// Whether blobs are only taken in one request.
    pub(crate) refuses_streams: bool,
}

/// What no patience helps against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// A byte of a layer is another one.
    LayerByte,
    /// A byte of the configuration is another one.
    ConfigByte,
    /// A layer goes on after its end.
    Longer,
    /// A layer ends before its end, as if that were all.
    Shorter,
    /// The manifest is sent as an index.
    MediaType,
    /// Manifests are answered with 503.
    Unavailable,
    /// Blobs are answered with 429 and an hour.
    Quota,
    /// Nobody may do anything.
    Forbidden,
}

/// What goes wrong with one answer, in passing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is reset before the answer.
    Reset,
    /// The connection is reset in the middle of a body, whichever way it goes.
    ResetInBody,
    /// The answer is this status.
    Status(u16),
    /// The answer is 429, with `Retry-After: 0`.
    TooMany,
    /// The answer comes in small pieces.
    Drip,
    /// A range is asked for, and everything comes.
    IgnoredRange,
    /// What was asked is done, and the answer is a failure.
    DoneButFailed,
    /// The token is not good any more.
    TokenRanOut,
    /// An upload is not known any more.
    Forgotten,
}

/// A request that may go wrong, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Token,
    Manifest,
    Blob,
    Upload,
    Piece,
    PutBlob,
    PutManifest,
}

/// A request goes wrong so often at most: less than every client's patience.
const MOST: u32 = 2;

impl Schedule {
    pub(crate) fn of(seed: u64) -> Self {
        let roll = |what: &str| number(&(seed, what));
        let is_pull = seed.is_multiple_of(2);
        let lies: &[Lie] = if is_pull {
            &[
                Lie::LayerByte,
                Lie::ConfigByte,
                Lie::Longer,
                Lie::Shorter,
                Lie::MediaType,
                Lie::Unavailable,
                Lie::Quota,
                Lie::Forbidden,
            ]
        } else {
            &[Lie::Unavailable, Lie::Quota, Lie::Forbidden]
        };
        // One in four lies, each kind in turn.
        let lie = (seed % 8 >= 6).then(|| lies[usize::try_from(seed / 8).unwrap() % lies.len()]);
        Self {
            seed,
            lie,
            percent: 10 + roll("percent") % 50,
            redirects: roll("redirects").is_multiple_of(2),
            refuses_streams: roll("streams").is_multiple_of(5),
        }
    }

    /// A registry that does nothing wrong.
    pub(crate) fn none() -> Self {
        Self { seed: 0, lie: None, percent: 0, redirects: false, refuses_streams: false }
    }

    /// What goes wrong with a request that came `before` times already.
    pub(crate) fn fault(&self, kind: Kind, path: &str, before: u32) -> Option<Fault> {
        let roll = number(&(self.seed, kind, path, before));
        if before >= MOST || roll % 100 >= self.percent {
            return None;
        }
        let usual =
            [Fault::Reset, Fault::Status(500), Fault::Status(502), Fault::Status(503), Fault::TooMany];
        let own: &[Fault] = match kind {
            Kind::Token => &[Fault::Drip],
            Kind::Manifest => &[Fault::Drip, Fault::ResetInBody, Fault::TokenRanOut],
            Kind::Blob => &[
                Fault::Drip,
                Fault::ResetInBody,
                Fault::ResetInBody,
                Fault::ResetInBody,
                Fault::IgnoredRange,
                Fault::IgnoredRange,
                Fault::TokenRanOut,
            ],
            Kind::Upload => &[Fault::TokenRanOut],
            Kind::Piece => &[
                Fault::ResetInBody,
                Fault::ResetInBody,
                Fault::DoneButFailed,
                Fault::TokenRanOut,
                Fault::Forgotten,
            ],
            Kind::PutBlob => &[Fault::DoneButFailed, Fault::TokenRanOut, Fault::Forgotten],
            Kind::PutManifest => &[Fault::DoneButFailed, Fault::TokenRanOut],
        };
        let all = usual.len() + own.len();
        let chosen = usize::try_from(roll / 100).unwrap() % all;
        usual.iter().chain(own).nth(chosen).copied()
    }
}

/// The same number for the same thing, in every run: the hasher has fixed keys.
fn number(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish() >> 1
}
