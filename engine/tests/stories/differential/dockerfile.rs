//! A random context and a random Dockerfile for it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::dice::Dice;
use super::tree::LATEST;

/// Directories of a context, those above first.
const DIRECTORIES: [&str; 8] = ["d1", "d1/sub", "d2", "d2/empty", "d3", "d3/a", "[x]", "sp ace"];

/// Its files.
const FILES: [&str; 15] = [
    "f1",
    "f2.txt",
    ".hidden",
    "a*b",
    "é.md",
    "d1/f",
    "d1/g.txt",
    "d1/sub/h",
    "d1/sub/.h",
    "d2/f",
    "d2/i.txt",
    "d3/a/deep.txt",
    "d3/x.go",
    "[x]/z",
    "sp ace/q",
];

/// Its symbolic links, and where they lead.
const LINKS: [(&str, &str); 8] = [
    ("l", "f1"),
    ("ll", "l"),
    ("dl", "d1"),
    ("dll", "dl"),
    ("d1/up", "../f1"),
    ("d1/lost", "nowhere"),
    ("d2/away", "/etc/passwd"),
    ("d3/abs", "/d1/sub"),
];

/// What instructions copy.
const SOURCES: [&str; 30] = [
    "f1",
    "d1",
    "d1/",
    "./d1/.",
    "d2",
    ".",
    "d*",
    "*.txt",
    "d?/i*",
    "d1/sub/h",
    "l",
    "dl",
    "d1/sub",
    "d1/up",
    ".hidden",
    "d1/g.txt f1",
    "f1 f2.txt d2/i.txt",
    "ll",
    "dll/sub",
    "dl/f",
    "d3",
    "d3/abs/h",
    "d3/a/*.txt",
    "a\\*b",
    "d1/sub/..",
    "/d1/../f1",
    "../../f1",
    "é.md",
    "d[12]",
    "d1 d2",
];

/// Where they copy it to.
const TARGETS: [&str; 14] = [
    "/x/",
    "/x/y/",
    "y/",
    "/deep/er/still/",
    "/link/",
    "./",
    "/w/$NAME/",
    "/home/guest/",
    "/x/d1/",
    "../up/",
    "/x/../z/",
    "/link/sub/",
    "/x/./y/",
    "${NONE:-q}/",
];

/// Where they copy a single file to.
const FILE_TARGETS: [&str; 5] = ["/x", "/x/y/f1", "one", "/deep/er/two", "/link/three"];

const OWNERS: [&str; 6] = ["1000", "1000:50", "guest", "guest:staff", "5:6", "$NUMBER:7"];

/// What commands change.
const PATHS: [&str; 10] =
    ["/x", "/x/y", "/x/d1", "/x/f1", "/deep", "/deep/er", "/w/name", "/link", "/y", "/x/sub"];

/// Writes a context: its files, modes, owners, times and links, and a `.dockerignore`.
pub(super) fn write_context(dice: &mut Dice, context: &Path) {
    fs::create_dir_all(context).unwrap();
    DIRECTORIES.iter().for_each(|path| fs::create_dir(context.join(path)).unwrap());
    for path in FILES {
        fs::write(context.join(path), format!("{path} {}\n", dice.roll(1000))).unwrap();
    }
    for (path, target) in LINKS {
        symlink(target, context.join(path)).unwrap();
    }
    fs::hard_link(context.join("d1/f"), context.join("d1/same")).unwrap();
    archive(context);
    for path in DIRECTORIES.iter().chain(&FILES) {
        let path = context.join(path);
        let kind = if path.is_dir() { 0o700 } else { 0o400 };
        let mode = kind
            | [0o000, 0o044, 0o055, 0o022, 0o111, 0o4011, 0o2050, 0o1077]
                [usize::try_from(dice.roll(8)).unwrap()];
        std::os::unix::fs::chown(&path, Some(dice.roll(3) as u32), Some(dice.roll(3) as u32)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let seconds = LATEST as u64 - dice.roll(1_000_000);
        let file = fs::File::open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }
    let patterns = [
        "\\[x]",
        "a\\*b",
        "d3/**/*.txt",
        "  d3/x.go  ",
        "sp ace/q",
        "*.txt",
        "d1/sub",
        "**/h",
        "!d1/g.txt",
        "/f1",
        "d2/*",
        "# d1",
        "d?/f",
        "**/.h*",
        "d1/**",
        "./d2/../f2.txt",
    ];
    let rules: Vec<&str> = (0..dice.roll(4)).map(|_| dice.one(&patterns)).collect();
    fs::write(context.join(".dockerignore"), rules.join("\n")).unwrap();
}

/// An archive to be unpacked, and a file that only has the name of one.
fn archive(context: &Path) {
    let mut archive = tar::Builder::new(fs::File::create(context.join("a.tar")).unwrap());
    for (name, mode, owner) in [("in/", 0o750, 3), ("in/file", 0o4640, 4), ("in/sub/other", 0o600, 5)] {
        let mut header = tar::Header::new_gnu();
        let kind = if name.ends_with('/') { tar::EntryType::Directory } else { tar::EntryType::Regular };
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner + 1);
        header.set_mtime(LATEST as u64 - owner);
        let text = if kind.is_dir() { "" } else { name };
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    archive.finish().unwrap();
    fs::write(context.join("no.tar.gz"), "not an archive").unwrap();
}

/// A Dockerfile of two stages, an instruction a line.
pub(super) fn dockerfile(dice: &mut Dice) -> Vec<String> {
    let mut lines = vec!["ARG NUMBER=3".to_owned(), "FROM localhost/box AS first".to_owned()];
    lines.extend(declarations());
    for _ in 0..3 + dice.roll(3) {
        lines.push(instruction(dice, false));
    }
    let base = if dice.once_in(2) { "first" } else { "localhost/box" };
    lines.push(format!("FROM {base}"));
    lines.extend(declarations());
    for _ in 0..6 + dice.roll(6) {
        lines.push(instruction(dice, true));
    }
    lines
}

fn declarations() -> Vec<String> {
    ["ARG NUMBER", "ENV NAME=name", "RUN mkdir -p /real /x; ln -sfn /real /link"].map(str::to_owned).to_vec()
}

fn instruction(dice: &mut Dice, has_first: bool) -> String {
    match dice.roll(12) {
        0..=4 => copy(dice, has_first),
        5..=7 => command(dice),
        _ => setting(dice, has_first),
    }
}

fn copy(dice: &mut Dice, has_first: bool) -> String {
    let mut flags = String::new();
    if dice.once_in(3) {
        flags.push_str(&format!("--chown={} ", dice.one(&OWNERS)));
    }
    if dice.once_in(8) {
        let mode = dice.one(&["755", "0640", "4711", "1777"]);
        return format!("COPY {flags}--chmod={mode} {} /tmp/", dice.one(&SOURCES));
    }
    match dice.roll(8) {
        0 => format!("ADD {} {}", dice.one(&["a.tar", "a.tar", "no.tar.gz"]), dice.one(&TARGETS)),
        1 if !has_first => {
            format!("ADD {flags}{} {}", dice.one(&["no.tar.gz", "d1", "f1"]), dice.one(&TARGETS))
        }
        1 if has_first => format!("COPY --from=first {flags}{} {}", dice.one(&PATHS), dice.one(&TARGETS)),
        2 => format!("COPY {flags}{} {}", dice.one(&["f1", "d1/sub/h", "l"]), dice.one(&FILE_TARGETS)),
        3 => {
            let source = dice.one(&["f1", "d1", "d*", "sp ace", "sp ace/q"]);
            format!("COPY {flags}[\"{source}\", \"{}\"]", dice.one(&TARGETS))
        }
        _ => format!("COPY {flags}{} {}", dice.one(&SOURCES), dice.one(&TARGETS)),
    }
}

/// What makes no sense on this tree changes nothing.
fn command(dice: &mut Dice) -> String {
    let (one, other) = (dice.one(&PATHS), dice.one(&PATHS));
    let command = match dice.roll(10) {
        0 => format!("mkdir -p {one}"),
        1 | 2 => format!("rm -rf {one}"),
        3 => format!("rm -rf {one} && mkdir {one} && echo new > {one}/n"),
        4 => format!("ln -s {other} {one}/ln"),
        5 => format!("ln {other} {one}/hard"),
        6 => format!("chmod {}{}{} {one}", 4 + dice.roll(4), dice.roll(8), dice.roll(8)),
        7 => format!("chown -R {}:{} {one}", dice.roll(3), dice.roll(3)),
        8 => format!("mv {other} {one}/moved"),
        _ => "env | grep -v -e ^PWD -e ^HOME -e ^OLDPWD -e ^SHLVL -e ^HOSTNAME -e ^container= | sort > /env"
            .to_owned(),
    };
    format!("RUN {{ {command}; }} 2>/dev/null || true")
}

/// Buildah does not take the arguments of a stage over to one that begins with it, and forgets SHELL where CMD and
/// ENTRYPOINT have the form for it: neither is tried.
fn setting(dice: &mut Dice, is_last: bool) -> String {
    let text = match dice.roll(12) {
        0 => dice.one(&[
            "ENV A=1 B=$A",
            "ENV A=$NAME-$NUMBER",
            "ENV A two words",
            "ENV A=\"x y\" B='$NAME' C=a\\ b",
            "ENV T=\"tab\\tx\" U=\\\\x",
            "ENV S=\"$NAME's\" D=\\$NAME G=\"\\$NAME\"",
        ]),
        1 => dice.one(&[
            "ENV P=${A:-def}${B:+alt}",
            "ENV P=${NAME}x B=",
            "ENV PATH=/opt:$PATH",
            "ENV A=${NONE}z",
        ]),
        2 if !is_last => "ARG NUMBER=9",
        2 => dice.one(&["ARG V=$NAME", "ARG NUMBER=9", "ARG A=arg", "ARG W", "ARG X=1 Y=$X"]),
        3 => dice.one(&[
            "LABEL a=b \"c d\"=\"e f\"",
            "LABEL n=$NAME a=2",
            "LABEL q='$NAME' e=",
            "LABEL long=\"1 \\\\ 2\"",
        ]),
        4 => dice.one(&["WORKDIR /w", "WORKDIR sub/$NAME", "WORKDIR ./v", "WORKDIR /link/in", "WORKDIR /"]),
        5 => dice.one(&["USER guest", "USER 1000:50", "USER root", "USER $NUMBER"]),
        6 => dice.one(&["ENTRYPOINT [\"/bin/sh\", \"-c\"]", "ENTRYPOINT exec top", "ENTRYPOINT []"]),
        7 => dice.one(&["CMD [\"a\", \"$NAME\"]", "CMD echo $NAME", "CMD []"]),
        8 => dice.one(&["EXPOSE 80", "EXPOSE 81/udp 90 91", "EXPOSE 8$NUMBER/tcp", "EXPOSE 80/tcp 80/udp"]),
        9 => dice.one(&[
            "HEALTHCHECK NONE",
            "HEALTHCHECK --interval=5s --retries=3 CMD true $NAME",
            "HEALTHCHECK --timeout=1m30s --start-period=2s CMD [\"true\", \"x\"]",
        ]),
        10 => dice.one(&["STOPSIGNAL SIGINT", "STOPSIGNAL 9", "MAINTAINER some one"]),
        _ => dice.one(&[
            "VOLUME /vol",
            "VOLUME [\"/vol\", \"/vol2/$NAME\"]",
            "ONBUILD RUN true",
            "ONBUILD LABEL x=$NAME",
        ]),
    };
    text.to_owned()
}
