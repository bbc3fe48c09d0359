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
    /// Who may ask.
    pub(crate) access: Access,
    /// How often the same request goes wrong at most.
    most: u32,
    /// How often tokens become void at most: one request may meet all of these times.
    pub(crate) most_generations: u32,
    /// Whether answers are other ones than they should be, in passing.
    is_dishonest: bool,
}

/// Whom a registry answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Open,
    /// Whoever has a token, which everybody gets.
    WithToken,
    /// Whoever has a token, which is given for a password.
    LoggedIn,
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
    /// One byte of a body is another one.
    WrongByte,
    /// A body goes on after its end.
    TooLong,
    /// A range is asked for, and another one comes.
    OtherRange,
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

/// No request goes wrong so often that it would matter.
const NO_END: u32 = u32::MAX;

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
            access: Access::LoggedIn,
            most: MOST,
            most_generations: MOST,
            is_dishonest: false,
        }
    }

    /// A registry that goes wrong as often as chance has it, until it is told to behave.
    pub(crate) fn storm(seed: u64, accesses: &[Access]) -> Self {
        let roll = |what: &str, sides: u64| usize::try_from(number(&(seed, "storm", what)) % sides).unwrap();
        Self {
            lie: None,
            percent: [5, 10, 25, 50, 90][roll("percent", 5)],
            redirects: roll("redirects", 2) == 0,
            refuses_streams: false,
            access: accesses[roll("access", accesses.len() as u64)],
            most: NO_END,
            most_generations: NO_END,
            is_dishonest: roll("dishonest", 3) == 0,
            ..Self::none(seed)
        }
    }

    /// A registry that does nothing wrong.
    pub(crate) fn none(seed: u64) -> Self {
        Self {
            seed,
            lie: None,
            percent: 0,
            redirects: false,
            refuses_streams: false,
            access: Access::LoggedIn,
            most: 0,
            most_generations: 0,
            is_dishonest: false,
        }
    }

    /// What goes wrong with a request that came `before` times already.
    pub(crate) fn fault(&self, kind: Kind, path: &str, before: u32) -> Option<Fault> {
        let roll = number(&(self.seed, kind, path, before));
        if before >= self.most || roll % 100 >= self.percent {
            return None;
        }
        let is_content = matches!(kind, Kind::Manifest | Kind::Blob);
        if self.is_dishonest && is_content && (roll / 10_000).is_multiple_of(6) {
            let lies = [Fault::WrongByte, Fault::TooLong, Fault::OtherRange];
            return lies.get(usize::try_from(roll / 100_000).unwrap() % lies.len()).copied();
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
