//! The difference between two versions of a file, for those of which chunks find nothing: in a compiled program every
//! address moves with the first changed line. The old version is the dictionary that the new one is compressed with.

use std::io::{self, Read, Write};

use engine::layer::Sum;

/// The largest file of which a difference is made: both versions are in memory, on both sides.
pub(super) const LARGEST: u64 = 96 << 20;

/// The smallest difference of which a part that has arrived is kept: a shorter one is soon sent again. The digest of
/// one that is not shorter follows its length.
pub(super) const LEAST_KEPT: u64 = 128 << 10;

/// Found by measuring: the next levels take twice the time for a tenth less.
const LEVEL: i32 = 6;

/// The difference from the old to the new version.
pub(super) fn difference(old: &[u8], new: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), LEVEL, old)?;
    // The window has to reach from the end of the new version to the beginning of the old one.
    let window = (old.len() + new.len()).next_power_of_two().trailing_zeros();
    encoder.window_log(window.clamp(MIN_WINDOW, MAX_WINDOW))?;
    encoder.long_distance_matching(true)?;
    encoder.write_all(new)?;
    encoder.finish()
}

/// The new version, which has this size, of the old one and the difference.
pub(super) fn apply(old: &[u8], difference: &[u8], size: u64) -> io::Result<Vec<u8>> {
    let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(difference, old)?;
    decoder.window_log_max(MAX_WINDOW)?;
    let mut new = Vec::new();
    // One more than there should be shows what is too long.
    decoder.take(size + 1).read_to_end(&mut new)?;
    Ok(new)
}

/// What a difference is kept as, while it arrives.
pub(super) fn key(old: &Sum, new: &Sum) -> Sum {
    Sum::of(&[&b"difference"[..], old.as_bytes(), new.as_bytes()].concat())
}

/// Where a difference of this length goes on of which so much has arrived before. Another one, as another version of
/// this program may make, begins anew when it shows in the length.
pub(super) fn goes_on(arrived: u64, length: u64) -> u64 {
    if length >= LEAST_KEPT && arrived <= length { arrived } else { 0 }
}

/// The least and the most that the format has on all machines (zstd's ZSTD_WINDOWLOG_MIN and _MAX_32).
const MIN_WINDOW: u32 = 10;
const MAX_WINDOW: u32 = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_small_and_makes_the_new_version() {
        let old: Vec<u8> =
            (0u32..200_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut new = old.clone();
        new.splice(1000..1000, *b"inserted");
        new[700_000] ^= 1;
        let difference = difference(&old, &new).unwrap();
        assert!(difference.len() < 1000, "{}", difference.len());
        assert!(apply(&old, &difference, new.len() as u64).unwrap() == new);
        // What is longer than it should be is not made to its end.
        assert_eq!(apply(&old, &difference, 10).unwrap().len(), 11);
        let other = apply(&new, &difference, new.len() as u64);
        assert!(other.is_err() || other.is_ok_and(|other| other != new));
    }
}
