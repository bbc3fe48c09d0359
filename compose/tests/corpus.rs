//! Generated projects that combine keys at random, against what docker-compose 2.40.3 makes of them
//! (`tests/corpus/README.md`).
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use compose::canonical::to_yaml;
use compose::{Diagnostics, LoadOptions, Loaded, load};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The cases, by number.
fn cases() -> Vec<PathBuf> {
    let is_number = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
    };
    let mut all: Vec<PathBuf> =
        fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().path()).filter(is_number).collect();
    all.sort();
    assert!(all.len() >= 60, "{}", all.len());
    all
}

/// A case with the files that all of them share, loaded from a directory of its own.
fn loaded(case: &Path) -> (tempfile::TempDir, PathBuf, Result<Loaded, Diagnostics>) {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("corpus");
    fs::create_dir(&directory).unwrap();
    for from in [corpus().join("shared"), case.to_path_buf()] {
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), directory.join(entry.file_name())).unwrap();
            }
        }
    }
    let options = LoadOptions {
        current_dir: Some(directory.clone()),
        environment: BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]),
        keep_optional: true,
        ..LoadOptions::default()
    };
    let loaded = load(&options);
    (scratch, directory, loaded)
}

#[test]
fn each_combination_comes_out_as_in_the_reference() {
    for case in cases() {
        let Ok(expected) = fs::read_to_string(case.join("config.yaml")) else { continue };
        let (_scratch, directory, loaded) = loaded(&case);
        let loaded = loaded.unwrap_or_else(|error| panic!("{}: {error}", case.display()));
        let expected = expected.replace("@DIR@", directory.to_str().unwrap());
        assert_eq!(to_yaml(&loaded.project), expected, "{}", case.display());
    }
}

#[test]
fn what_the_reference_refuses_is_refused_with_its_place() {
    let mut refused = 0;
    for case in cases().into_iter().filter(|case| case.join("refused").exists()) {
        let error = loaded(&case).2.unwrap_err();
        assert!(error.0.iter().all(|one| one.place.is_some()), "{}: {error}", case.display());
        refused += 1;
    }
    assert!(refused >= 10, "{refused}");
}
