//! What strangers write — Dockerfiles, ignore files, names, archives and the manifests in them — with seeded mistakes in it: each is read or
//! refused, and none brings the reader down. The seed of a failure is in its message.

#![expect(clippy::unwrap_used, reason = "test helpers")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use engine::Root;
use engine::builder::ignore::Ignore;
use engine::builder::{BuildRequest, DockerfileSource, targets};
use engine::id::Digest;
use engine::image::{ImageConfig, Images, Reference};

/// Numbers that are the same in each run (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides.max(1) as u64).unwrap()
    }

    /// The same with a few mistakes; `words` are what such texts are made of.
    fn mutate(&mut self, original: &[u8], words: &[&str]) -> Vec<u8> {
        let mut bytes = original.to_vec();
        for _ in 0..=self.roll(5) {
            let at = self.roll(bytes.len() + 1);
            let end = (at + self.roll(12)).min(bytes.len());
            match self.roll(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.roll(8),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                3 => bytes.truncate(at.max(1)),
                4 if at < bytes.len() => bytes[at] = [0, 0xff, b'\n', b'\\', b'"', b'$'][self.roll(6)],
                _ => drop(bytes.splice(at..at, words[self.roll(words.len())].bytes())),
            }
        }
        bytes
    }
}

/// Reads many wrong versions of a text.
fn each(rounds: u64, original: &[u8], words: &[&str], read: impl Fn(&[u8])) {
    for seed in 0..rounds {
        let wrong = Dice(seed).mutate(original, words);
        let outcome = catch_unwind(AssertUnwindSafe(|| read(&wrong)));
        assert!(outcome.is_ok(), "seed {seed} brings it down: {:?}", String::from_utf8_lossy(&wrong));
    }
}

#[test]
fn a_dockerfile_is_read_or_refused() {
    let text = r#"# syntax=docker/dockerfile:1
# escape=\
ARG BASE=busybox:${TAG:-1.36}
FROM --platform=$BUILDPLATFORM ${BASE} AS build
ENV A="b c" D=${A#b} E=${A//b/c}
LABEL one=two "three"='four'
RUN --mount=type=cache,target=/c,sharing=locked --network=none <<-EOF bash
	echo $A \
	  # inside
EOF
COPY --chmod=755 --chown=1:2 --exclude=*.o <<X [a-z]* /dst/
text $A
X
HEALTHCHECK --interval=5s CMD ["a", "b"]
EXPOSE 80-90/tcp
FROM scratch
COPY --from=build / /
ADD --checksum=sha256:00 https://example.com/a /b
ONBUILD RUN echo
SHELL ["/bin/sh", "-c"]
VOLUME /a /b
STOPSIGNAL 9
CMD x
"#;
    let words = [
        "<<EOF",
        "<<-\"X\"",
        "\\\n",
        "`\n",
        "${",
        "${A:-${B",
        "}",
        "$",
        "--mount=",
        "--",
        "=",
        "[\"",
        "\"]",
        "#",
        "\r\n",
        "ONBUILD ",
        "FROM ",
        "\u{feff}",
        "é",
        "\t",
        "'",
        "# escape=`\n",
        "ARG ",
    ];
    each(6000, text.as_bytes(), &words, |wrong| {
        let mut request = BuildRequest::of("/");
        request.dockerfile = DockerfileSource::Inline(String::from_utf8_lossy(wrong).into_owned());
        let _ = targets(&request);
    });
}

#[test]
fn an_ignore_file_is_read_or_refused() {
    let text = "# comment\n*/temp*\n**/*.o\n!keep/[a-z]?/**\n/lead/ing/\n  blank  \n..\n\\#x\n";
    let words = ["**", "!", "[", "]", "[^", "-", "\\", "/", "..", "?", "*", "\u{feff}", "é", "\r"];
    each(6000, text.as_bytes(), &words, |wrong| {
        if let Ok(ignore) = Ignore::from_file(&String::from_utf8_lossy(wrong)) {
            for path in ["a", "keep/a1/x", "é/temp/b.o", "..", "lead/ing"] {
                ignore.standing(path);
                ignore.may_bring_back_below(path);
            }
        }
    });
}

#[test]
fn a_name_is_read_as_it_is_written_again_or_refused() {
    let digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let words = [":", "/", "@", "sha256:", "localhost", "..", "__", "-", "[::1]", "A", "é", "latest", "5000"];
    for name in [format!("[2001:db8::1]:5000/team/app_x:1.0-a{digest}"), "docker.io/a/b".into(), "a".into()] {
        each(4000, name.as_bytes(), &words, |wrong| {
            let text = String::from_utf8_lossy(wrong);
            if let Ok(reference) = text.parse::<Reference>() {
                assert_eq!(reference.canonical().parse::<Reference>().unwrap(), reference, "{text:?}");
            }
        });
    }
}

/// An archive as `save` writes it: its files in order.
fn saved(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let images = Images::at(&Root::at(&directory.join("state")));
    let upper = directory.join("state/upper");
    fs::create_dir_all(upper.join("dir")).unwrap();
    fs::write(upper.join("dir/file"), "hello").unwrap();
    let diff = images.layers().adopt(&upper).unwrap();
    let mut config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..Default::default() };
    config.rootfs.diff_ids = vec![diff];
    images.commit(&config, &["a:1".parse().unwrap()]).unwrap();
    let mut archive = Vec::new();
    images.save(&["a:1".to_owned()], &mut archive).unwrap();
    let mut files = Vec::new();
    for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
            files.push((entry.path().unwrap().to_string_lossy().into_owned(), bytes));
        }
    }
    files
}

fn packed(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Puts mistakes into one file; what names it by its digest follows, so that it is still looked at.
fn spoil(files: &[(String, Vec<u8>)], dice: &mut Dice, words: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut files = files.to_vec();
    let chosen = dice.roll(files.len());
    let wrong = dice.mutate(&files[chosen].1, words);
    let (path, bytes) = &mut files[chosen];
    let Some(old) = path.strip_prefix("blobs/sha256/").map(str::to_owned) else {
        *bytes = wrong;
        return files;
    };
    let new = Digest::of(&wrong).hex().to_owned();
    let (was, is) = (format!("\"size\":{}", bytes.len()), format!("\"size\":{}", wrong.len()));
    (*path, *bytes) = (format!("blobs/sha256/{new}"), wrong);
    for (_, bytes) in files.iter_mut().filter(|(path, _)| path.ends_with(".json")) {
        if let Ok(text) = std::str::from_utf8(bytes) {
            *bytes = text.replace(&old, &new).replace(&was, &is).into_bytes();
        }
    }
    files
}

#[test]
fn an_archive_is_loaded_or_refused_and_never_half() {
    let world = tempfile::tempdir().unwrap();
    let files = saved(world.path());
    let words = [
        "\"digest\":",
        "sha256:",
        "{",
        "}",
        "[",
        "]",
        "null",
        "-1",
        "1e99",
        "../../x",
        "\"size\":0,",
        "\u{0}",
        "\"layers\":[]",
        "\"manifests\":[]",
        "PaxHeader",
        "9999999999999999999",
        "ustar",
        ".wh.",
        "/",
    ];
    let root = Root::at(&world.path().join("loaded"));
    let images = Images::at(&root);
    for seed in 0..400 {
        let mut dice = Dice(seed);
        // Every other one has its mistakes in the tar itself.
        let archive = if seed % 2 == 0 {
            packed(&spoil(&files, &mut dice, &words))
        } else {
            dice.mutate(&packed(&files), &words)
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| images.load(&mut archive.as_slice()).is_ok()));
        assert!(outcome.is_ok(), "seed {seed} brings it down");
        for image in images.list().unwrap() {
            for diff in &image.config.rootfs.diff_ids {
                let mut tar = Vec::new();
                images.layers().pack(diff, &mut tar).unwrap();
                assert_eq!(Digest::of(&tar), *diff, "seed {seed}");
            }
        }
        assert_eq!(fs::read_dir(root.state().join("tmp")).map_or(0, Iterator::count), 0, "seed {seed}");
        if seed % 20 == 0 {
            engine::store::remove_tree(root.state()).unwrap();
        }
    }
    for run in [root.run(), Root::at(&world.path().join("state")).run()] {
        let _ = engine::store::remove_tree(run);
    }
}
