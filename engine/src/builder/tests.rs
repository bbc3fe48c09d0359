//! Builds from Dockerfile to image in a root of their own. Commands are scripted here; real ones run in the
//! engine's own tests.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::stack::Stack;
use super::*;
use crate::container::spec::MountSource;
use crate::image::Images;
use crate::layer::Layers;
use crate::store::remove_tree;

mod again;
mod bases;
mod lend;
mod names;
mod sandbox;
mod squash;

/// A root, a context and what the last build told.
struct World {
    _temp: tempfile::TempDir,
    root: Root,
    context: PathBuf,
    runner: Script,
    events: Vec<BuildEvent>,
}

/// Runs the "shell" of these tests: `put PATH TEXT`, `drop PATH`, `say TEXT`, `fail CODE` and, for a file in the first
/// directory that is mounted, `keep NAME`, separated by `;`.
#[derive(Default)]
struct Script {
    steps: Mutex<Vec<RunStep>>,
}

impl Runner for Script {
    fn run(&self, step: &RunStep, output: &mut dyn FnMut(Stream, &[u8])) -> crate::Result<i32> {
        self.steps.lock().unwrap().push(step.clone());
        for command in step.argv.last().unwrap().split(';') {
            let (verb, rest) = command.trim().split_once(' ').unwrap_or((command.trim(), ""));
            match verb {
                "put" => {
                    let (path, text) = rest.split_once(' ').unwrap_or((rest, ""));
                    let path = step.upper.join(path.trim_start_matches('/'));
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, text).unwrap();
                }
                // As overlayfs notes it.
                "drop" => {
                    let path = step.upper.join(rest);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty());
                    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
                }
                "keep" => {
                    let paths = step.mounts.iter().filter_map(|mount| match &mount.source {
                        MountSource::Bind { path, .. } => Some(path),
                        _ => None,
                    });
                    fs::write(paths.into_iter().next().unwrap().join(rest), "").unwrap();
                }
                "say" => output(Stream::Stdout, format!("{rest}\n").as_bytes()),
                "fail" => return Ok(rest.parse().unwrap()),
                _ => {}
            }
        }
        Ok(0)
    }

    fn prompt(&self, step: &RunStep) -> crate::Result<()> {
        self.run(step, &mut |_, _| ()).map(drop)
    }

    fn pull(
        &self,
        reference: &Reference,
        _: Option<&Platform>,
        _: &mut dyn FnMut(&str),
    ) -> crate::Result<()> {
        Err(crate::Error::not_found(format!("image {reference} not found")))
    }
}

impl World {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = Root::at(&temp.path().join("state"));
        let context = temp.path().join("context");
        for directory in [root.state(), &root.scratch(), &root.layers(), &context] {
            fs::create_dir_all(directory).unwrap();
        }
        Self { _temp: temp, root, context, runner: Script::default(), events: Vec::new() }
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.context.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn request(&self, dockerfile: &str) -> BuildRequest {
        BuildRequest {
            dockerfile: DockerfileSource::Inline(dockerfile.to_owned()),
            ..BuildRequest::of(&self.context)
        }
    }

    fn build_with(&mut self, request: &BuildRequest) -> crate::Result<Image> {
        self.events.clear();
        let events = &mut self.events;
        build(&self.root, &self.runner, request, &mut |event| events.push(event))
            .map(|images| images[0].clone())
    }

    fn build(&mut self, dockerfile: &str) -> Image {
        let request = self.request(dockerfile);
        self.build_with(&request).unwrap_or_else(|error| panic!("{}", crate::error::chain(&error)))
    }

    fn fails(&mut self, dockerfile: &str) -> String {
        let request = self.request(dockerfile);
        crate::error::chain(&self.build_with(&request).unwrap_err())
    }

    /// The image's files as a container would see them: path, mode, owner and content or target.
    fn files(&self, image: &Image) -> Vec<String> {
        let stack = self.stack(image);
        let mut found = Vec::new();
        list(&stack.root().unwrap().unwrap(), "", &mut found);
        found
    }

    fn stack(&self, image: &Image) -> Stack {
        let layers = Layers::at(&self.root);
        Stack::of(image.config.rootfs.diff_ids.iter().rev().map(|diff| layers.dir(diff)).collect())
    }

    fn metadata(&self, image: &Image, path: &str) -> fs::Metadata {
        self.stack(image).resolve(Path::new(path), false).unwrap().entry.unwrap().metadata
    }

    fn text(&self, image: &Image, path: &str) -> String {
        self.stack(image).read(path).unwrap().unwrap_or_else(|| panic!("no file {path}"))
    }

    fn cached(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, BuildEvent::Cached(_))).count()
    }

    fn warnings(&self) -> Vec<&str> {
        let rule = |event: &BuildEvent| match event {
            BuildEvent::Warning(warning) => Some(warning.rule),
            _ => None,
        };
        self.events.iter().filter_map(rule).collect()
    }

    fn runs(&self) -> usize {
        self.runner.steps.lock().unwrap().len()
    }

    fn last_step(&self) -> RunStep {
        self.runner.steps.lock().unwrap().last().unwrap().clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = remove_tree(self.root.run());
    }
}

fn list(directory: &stack::Entry, path: &str, found: &mut Vec<String>) {
    for (name, entry) in directory.children().unwrap() {
        let path = format!("{path}/{}", name.to_string_lossy());
        let metadata = &entry.metadata;
        let shown = if metadata.is_symlink() {
            format!("-> {}", fs::read_link(&entry.host).unwrap().display())
        } else if metadata.is_dir() {
            "/".to_owned()
        } else {
            fs::read_to_string(&entry.host).unwrap_or_else(|_| "?".to_owned())
        };
        found.push(format!(
            "{path} {:o} {}:{} {shown}",
            metadata.mode() & 0o7777,
            metadata.uid(),
            metadata.gid()
        ));
        if metadata.is_dir() {
            list(&entry, &path, found);
        }
    }
}

fn history(image: &Image) -> Vec<String> {
    image
        .config
        .history
        .iter()
        .map(|entry| {
            let mark = if entry.empty_layer { "- " } else { "+ " };
            format!("{mark}{}", entry.created_by.as_deref().unwrap_or_default())
        })
        .collect()
}

#[test]
fn an_image_from_scratch_has_its_files_configuration_and_history() {
    let mut world = World::new().file("app", "binary").file("conf/a.cfg", "a");
    let mut request = world.request(
        "FROM scratch\nARG V=1\nENV A=$V B=\"x y\"\nLABEL a.b=c\nCOPY app /bin/\nCOPY conf /etc/conf\nWORKDIR /srv\n\
         EXPOSE 80 53/udp\nVOLUME /data\nUSER 1:2\nSTOPSIGNAL SIGINT\nHEALTHCHECK --interval=3s CMD [\"/bin/app\"]\n\
         ENTRYPOINT [\"/bin/app\"]\nCMD [\"--serve\"]\n",
    );
    request.tags = vec!["example/app:1".parse().unwrap()];
    request.labels.insert("extra".to_owned(), "yes".to_owned());
    let image = world.build_with(&request).unwrap();
    assert_eq!(
        world.files(&image),
        [
            "/bin 755 0:0 /",
            "/bin/app 644 0:0 binary",
            "/etc 755 0:0 /",
            "/etc/conf 755 0:0 /",
            "/etc/conf/a.cfg 644 0:0 a",
            "/srv 755 0:0 /"
        ]
    );
    let config = &image.config.config;
    assert_eq!(
        config.env,
        ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=1", "B=x y"]
    );
    assert_eq!(config.cmd.as_deref().unwrap(), ["--serve"]);
    assert_eq!(config.entrypoint.as_deref().unwrap(), ["/bin/app"]);
    assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv", "1:2"));
    assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
    assert_eq!(config.labels.len(), 2);
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(image.references, request.tags);
    assert_eq!(
        history(&image),
        [
            "- ARG V=1",
            "- ENV A=1 B=x y",
            "- LABEL a.b=c",
            "+ COPY app /bin/ # buildkit",
            "+ COPY conf /etc/conf # buildkit",
            "+ WORKDIR /srv",
            "- EXPOSE map[53/udp:{} 80/tcp:{}]",
            "- VOLUME [/data]",
            "- USER 1:2",
            "- STOPSIGNAL SIGINT",
            "- HEALTHCHECK --interval=3s CMD [\"/bin/app\"]",
            "- ENTRYPOINT [\"/bin/app\"]",
            "- CMD [\"--serve\"]",
        ]
    );
    assert_eq!(image.config.rootfs.diff_ids.len(), 3);
}

#[test]
fn a_second_build_is_cached_and_is_the_same_image() {
    let mut world = World::new().file("a", "a");
    let dockerfile = "FROM scratch\nCOPY a /a\nRUN put /b b\nWORKDIR /w\n";
    let first = world.build(dockerfile);
    assert_eq!((world.cached(), world.runs()), (0, 1));
    let second = world.build(dockerfile);
    assert_eq!((world.cached(), world.runs()), (3, 1));
    assert_eq!(first.id, second.id);
    let mut request = world.request(dockerfile);
    request.cache = CacheUse::None;
    world.build_with(&request).unwrap();
    assert_eq!((world.cached(), world.runs()), (0, 2));
}

#[test]
fn the_cache_looks_at_content_and_not_at_times() {
    let mut world = World::new().file("a", "one");
    let dockerfile = "FROM scratch\nCOPY a /a\n";
    world.build(dockerfile);
    let path = world.context.join("a");
    let before = fs::metadata(&path).unwrap().modified().unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    world.build(dockerfile);
    assert_eq!(world.cached(), 1, "a touch changes nothing");
    fs::write(&path, "two").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    let image = world.build(dockerfile);
    assert_eq!(world.cached(), 0, "new content of the same size and time is seen");
    assert_eq!(world.text(&image, "/a"), "two");
}

#[test]
fn a_changed_file_runs_only_what_comes_after_it() {
    let mut world = World::new().file("a", "a").file("b", "b");
    let dockerfile = "FROM scratch\nCOPY a /\nRUN put /1 x\nCOPY b /\nRUN put /2 x\n";
    world.build(dockerfile);
    fs::write(world.context.join("b"), "changed").unwrap();
    world.build(dockerfile);
    assert_eq!((world.cached(), world.runs()), (2, 3));
}

#[test]
fn a_layer_that_went_away_is_made_again() {
    let mut world = World::new().file("a", "a");
    let image = world.build("FROM scratch\nCOPY a /\n");
    fs::remove_dir_all(world.root.layer(&image.config.rootfs.diff_ids[0])).unwrap();
    let image = world.build("FROM scratch\nCOPY a /\n");
    assert_eq!((world.cached(), world.text(&image, "a").as_str()), (0, "a"));
}

#[test]
fn stages_copy_from_each_other_by_name_and_by_number() {
    let mut world = World::new().file("src", "source");
    let image = world.build(
        "ARG BASE=one\nFROM scratch AS one\nCOPY src /in/src\nFROM scratch AS unused\nRUN fail 1\n\
         FROM ${BASE} AS two\nRUN put /out/bin built\nFROM scratch\nCOPY --from=TWO /out/bin /bin/\nCOPY --from=0 /in /in\n",
    );
    let files = world.files(&image);
    assert_eq!(
        files,
        ["/bin 755 0:0 /", "/bin/bin 644 0:0 built", "/in 755 0:0 /", "/in/src 644 0:0 source"]
    );
    assert_eq!(world.runs(), 1, "the stage that nobody needs does not run");
}

#[test]
fn copies_from_a_stage_hit_the_cache_when_its_bytes_are_the_same() {
    let mut world = World::new().file("a", "1");
    let dockerfile = "FROM scratch AS build\nCOPY a /a\nRUN put /out same\nFROM scratch\nCOPY --from=build /out /out\nRUN put /z z\n";
    world.build(dockerfile);
    fs::write(world.context.join("a"), "2").unwrap();
    world.build(dockerfile);
    assert_eq!(world.cached(), 2, "what comes after the copy is cached though the stage ran again");
    assert_eq!(world.runs(), 3);
}

#[test]
fn a_target_stops_the_build_there() {
    let mut world = World::new();
    let mut request =
        world.request("FROM scratch AS a\nRUN put /a a\nFROM a AS b\nRUN put /b b\nFROM b\nRUN fail 1\n");
    request.target = Some("B".to_owned());
    let image = world.build_with(&request).unwrap();
    assert_eq!(world.files(&image).len(), 2);
    request.target = Some("c".to_owned());
    let error = world.build_with(&request).unwrap_err();
    assert_eq!(error.to_string(), "target stage \"c\" could not be found");
    assert_eq!(error.hint(), Some("the stages are a, b"));
}

#[test]
fn arguments_reach_where_they_are_declared() {
    let mut world = World::new();
    let dockerfile = "ARG G=global\nFROM scratch\nARG G\nARG D=default\nARG N\nENV D=env\nENV X=$G-$D-$N-$TARGETOS\nARG TARGETOS\nENV Y=$TARGETOS\nRUN put /x $X\n";
    let mut request = world.request(dockerfile);
    request.args.insert("D".to_owned(), "given".to_owned());
    request.args.insert("N".to_owned(), "n".to_owned());
    request.args.insert("HTTP_PROXY".to_owned(), "http://proxy".to_owned());
    let image = world.build_with(&request).unwrap();
    let env = &image.config.config.env;
    assert_eq!(env[1..], ["D=env", "X=global-env-n-", "Y=linux"]);
    let step = world.last_step();
    for wanted in ["G=global", "N=n", "TARGETOS=linux", "HTTP_PROXY=http://proxy", "D=env"] {
        assert!(step.env.iter().any(|pair| pair == wanted), "{wanted}");
    }
    assert_eq!(step.argv, ["/bin/sh", "-c", "put /x $X"], "the shell expands the text of RUN, nobody else");
    let text = history(&image).pop().unwrap();
    assert_eq!(text, "+ RUN |4 G=global D=env N=n TARGETOS=linux /bin/sh -c put /x $X # buildkit");
    assert_eq!(world.warnings(), ["UndefinedVar"]);
    request.args.insert("HTTP_PROXY".to_owned(), "http://other".to_owned());
    world.build_with(&request).unwrap();
    assert_eq!(world.cached(), 1, "a proxy is not part of the key");
    request.args.insert("N".to_owned(), "m".to_owned());
    world.build_with(&request).unwrap();
    assert_eq!(world.cached(), 0);
}

#[test]
fn a_failed_command_is_told_with_its_output_and_its_line() {
    let mut world = World::new();
    let error = world.fails("FROM scratch\nRUN put /a a\nRUN say hello; \\\n  fail 3\nRUN say never\n");
    assert_eq!(
        error,
        "Dockerfile:3: process \"/bin/sh -c say hello;   fail 3\" did not complete successfully: exit code: 3"
    );
    let Some(BuildEvent::Failure(failure)) = world.events.last() else { panic!("no failure told") };
    assert_eq!(failure.tail[0].1, "hello");
    let excerpt = failure.excerpt.as_deref().unwrap();
    assert!(
        excerpt.contains("   3 | >>> RUN say hello; \\\n   4 | >>>   fail 3\n   5 |     RUN say never"),
        "{excerpt}"
    );
    assert_eq!(fs::read_dir(world.root.scratch()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_mistake_in_the_dockerfile_is_told_before_anything_runs() {
    let mut world = World::new();
    assert_eq!(
        world.fails("FROM scratch\nRUN put /a a\nCPOY a b\n"),
        "Dockerfile:3:1: unknown instruction: CPOY (did you mean COPY?)"
    );
    assert_eq!(world.runs(), 0);
    assert_eq!(world.fails("FROM scratch\nCOPY none /\n"), "Dockerfile:2: \"/none\": not found");
    assert!(world.fails("FROM nowhere/none:1\n").contains("image nowhere/none:1 not found"));
    let later = world.fails("FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nFROM a\n");
    assert!(later.contains("needs to be defined before current stage \"a\""), "{later}");
    assert!(world.fails("FROM scratch\nCOPY --chown=nobody / /\n").contains("unable to find user nobody"));
    assert!(world.fails("FROM scratch\nSTOPSIGNAL SIGNONE\n").contains("invalid signal"));
}

#[test]
fn directories_are_copied_by_their_contents() {
    let mut world = World::new().file("d1/a", "1").file("d1/sub/b", "1").file("d2/sub/b", "2").file("f", "f");
    let image =
        world.build("FROM scratch\nCOPY d1 /x\nCOPY d* /y/\nCOPY d1 d2 /z\nCOPY f /x\nCOPY f /new/name\n");
    let files = world.files(&image);
    for wanted in [
        "/x/a 644",
        "/x/sub/b 644 0:0 1",
        "/y/sub/b 644 0:0 2",
        "/z/sub/b 644 0:0 2",
        "/x/f 644",
        "/new/name 644",
    ] {
        assert!(files.iter().any(|line| line.starts_with(wanted)), "{wanted} in {files:#?}");
    }
    assert!(!files.iter().any(|line| line.contains("/d1")));
}

#[test]
fn sources_and_destinations_that_do_not_fit_are_refused() {
    let mut world = World::new().file("d/x", "1").file("f", "f").file("g", "g");
    let base = "FROM scratch\nRUN put /file f; put /dir/x/y z\n";
    let error = world.fails(&format!("{base}COPY d /file\n"));
    assert!(error.contains("cannot copy to non-directory: /file"), "{error}");
    let error = world.fails(&format!("{base}COPY d /dir\n"));
    assert!(error.contains("cannot replace directory /dir/x with a file"), "{error}");
    let error = world.fails(&format!("{base}COPY f g /new\n"));
    assert!(error.contains("must be a directory and end with a /"), "{error}");
    let image = world.build(&format!("{base}COPY f g /dir\nCOPY *.none /none/\n"));
    assert!(!world.files(&image).iter().any(|line| line.starts_with("/none")), "no match creates nothing");
}

#[test]
fn links_are_followed_at_the_ends_and_kept_inside() {
    let mut world = World::new().file("real/file", "x");
    symlink("real", world.context.join("link")).unwrap();
    symlink("dangling", world.context.join("real/inner")).unwrap();
    symlink("real/file", world.context.join("to-file")).unwrap();
    let image = world.build("FROM scratch\nCOPY link /a\nCOPY to-file /b/\nCOPY to-file /c\n");
    let files = world.files(&image);
    assert!(files.contains(&"/a/file 644 0:0 x".to_owned()), "{files:#?}");
    assert!(files.contains(&"/a/inner 777 0:0 -> dangling".to_owned()));
    assert!(files.contains(&"/b/to-file 644 0:0 x".to_owned()));
    assert!(files.contains(&"/c 644 0:0 x".to_owned()));
}

#[test]
fn a_link_in_the_image_leads_the_copy_but_never_out_of_it() {
    let mut world = World::new().file("f", "f").file("links/there", "");
    fs::remove_file(world.context.join("links/there")).unwrap();
    symlink("/real/place", world.context.join("links/there")).unwrap();
    symlink("../../../../../../../../escaped", world.context.join("links/out")).unwrap();
    let image = world.build("FROM scratch\nCOPY links /\nCOPY f /there/\nCOPY f /out/deep/f\n");
    let files = world.files(&image);
    assert!(files.contains(&"/real/place/f 644 0:0 f".to_owned()), "{files:#?}");
    assert!(files.contains(&"/escaped/deep/f 644 0:0 f".to_owned()), "{files:#?}");
    assert!(!Path::new("/escaped").exists());
    let image = world.build("FROM scratch\nCOPY links /\nCOPY --link f /there/\n");
    assert!(world.files(&image).contains(&"/there/f 644 0:0 f".to_owned()), "a linked layer follows nothing");
}

#[test]
fn owners_and_modes_are_roots_unless_asked_for() {
    let mut world = World::new().file("d/run.sh", "x").file("d/sub/plain", "x");
    let passwd = "root:x:0:0::/:/bin/sh\nweb:x:33:44::/:/bin/sh\n";
    let mut world = {
        fs::write(world.context.join("passwd"), passwd).unwrap();
        world.events.clear();
        world
    };
    std::os::unix::fs::chown(world.context.join("d/run.sh"), Some(1234), Some(1234)).unwrap();
    fs::set_permissions(world.context.join("d/run.sh"), fs::Permissions::from_mode(0o4755)).unwrap();
    let image = world.build(
        "FROM scratch\nCOPY passwd /etc/\nUSER 7\nCOPY d /a\nCOPY --chown=web --chmod=u=rwX,go=rX d /b\nCOPY --chown=5 --chmod=700 d/run.sh /new/dir/\nCOPY --chown=web:9 d/run.sh /c\nWORKDIR /w/x\n",
    );
    let files = world.files(&image);
    for wanted in [
        "/a/run.sh 4755 0:0 x",
        "/b 755 33:44 /",
        "/b/run.sh 755 33:44 x",
        "/b/sub 755 33:44 /",
        "/b/sub/plain 644 33:44 x",
        "/new 700 5:5 /",
        "/new/dir 700 5:5 /",
        "/new/dir/run.sh 700 5:5 x",
        "/c 4755 33:9 x",
        "/w 755 7:7 /",
        "/w/x 755 7:7 /",
    ] {
        assert!(files.contains(&wanted.to_owned()), "{wanted} in {files:#?}");
    }
    let image = world.build("FROM scratch AS a\nCOPY --chown=5:6 d /d\nFROM scratch\nCOPY --from=a /d /d\n");
    assert!(world.files(&image).contains(&"/d/run.sh 4755 5:6 x".to_owned()), "stages keep their owners");
}

#[test]
fn times_and_hardlinks_are_kept() {
    let mut world = World::new().file("d/one", "x").file("d/sub/other", "y");
    fs::hard_link(world.context.join("d/one"), world.context.join("d/two")).unwrap();
    let old = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
    for path in ["d/one", "d/sub", "d"] {
        fs::File::open(world.context.join(path)).unwrap().set_modified(old).unwrap();
    }
    let image = world.build("FROM scratch\nCOPY d /d\nCOPY d/sub/other /d/sub/\n");
    for path in ["d/one", "d/sub", "d"] {
        assert_eq!(world.metadata(&image, path).mtime(), 1_000_000, "{path}");
    }
    let (one, two) = (world.metadata(&image, "d/one"), world.metadata(&image, "d/two"));
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
}

#[test]
fn ignored_files_do_not_exist() {
    let mut world = World::new()
        .file(".dockerignore", "*.log\nsecret\n!keep.log\n")
        .file("a.log", "x")
        .file("keep.log", "x")
        .file("secret/key", "x")
        .file("main", "x");
    let image = world.build("FROM scratch\nCOPY . /\n");
    let names: Vec<_> =
        world.files(&image).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["/.dockerignore", "/keep.log", "/main"]);
    let error = world.fails("FROM scratch\nCOPY secret/key /\n");
    assert!(error.contains(".dockerignore leaves it out"), "{error}");
    let mut world = world
        .file("other/Dockerfile", "FROM scratch\nCOPY . /\n")
        .file("other/Dockerfile.dockerignore", "**\n!main\n");
    let request = BuildRequest {
        dockerfile: DockerfileSource::File(world.context.join("other/Dockerfile")),
        ..BuildRequest::of(&world.context)
    };
    let image = world.build_with(&request).unwrap();
    assert_eq!(world.files(&image), ["/main 644 0:0 x"]);
}

#[test]
fn heredocs_become_files_and_scripts() {
    let mut world = World::new();
    let image = world.build(
        "FROM scratch\nENV WHO=you\nCOPY <<one <<\"two\" /d/\nhello $WHO \"q\"\none\nhello $WHO\ntwo\nCOPY <<x /named\ny\nx\nRUN <<EOF\nput /made by-heredoc\nEOF\n",
    );
    assert_eq!(world.text(&image, "/d/one"), "hello you \"q\"\n");
    assert_eq!(world.text(&image, "/d/two"), "hello $WHO\n");
    assert_eq!(world.text(&image, "/named"), "y\n");
    assert_eq!(world.last_step().argv, ["/bin/sh", "-c", "put /made by-heredoc\n"]);
    world.build("FROM scratch\nRUN <<EOF\n#!/bin/prog\nbody\nEOF\n");
    let step = world.last_step();
    assert_eq!(
        (step.argv, step.mounts[0].target.as_path()),
        (vec!["/dev/pipes/EOF".to_owned()], Path::new("/dev/pipes"))
    );
}

fn tar_with(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if *kind == tar::EntryType::Directory { 0o750 } else { 0o640 });
        header.set_uid(11);
        header.set_gid(12);
        header.set_mtime(1_000_000);
        let bytes = header.as_gnu_mut().unwrap();
        bytes.name[..name.len()].copy_from_slice(name.as_bytes());
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            bytes.linkname[..content.len()].copy_from_slice(content.as_bytes());
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, &[][..]).unwrap();
        } else {
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

#[test]
fn add_unpacks_what_really_is_an_archive() {
    use std::io::Write;
    let tar = tar_with(&[
        ("dir/", tar::EntryType::Directory, ""),
        ("dir/file", tar::EntryType::Regular, "content"),
        ("dir/hard", tar::EntryType::Link, "dir/file"),
        ("dir/soft", tar::EntryType::Symlink, "file"),
    ]);
    let mut world = World::new().file("fake.tar.gz", "no archive").file("plain", "p");
    fs::write(world.context.join("a.tar"), &tar).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    fs::write(world.context.join("named-wrongly"), gzip.finish().unwrap()).unwrap();
    fs::write(world.context.join("z"), zstd::encode_all(&tar[..], 1).unwrap()).unwrap();
    let image = world.build(
        "FROM scratch\nADD a.tar /a\nADD named-wrongly /b/\nADD z /c\nADD fake.tar.gz plain /d/\nCOPY a.tar /e/\nADD --chown=1:2 a.tar /f\nADD --unpack=false a.tar /g/\n",
    );
    let files = world.files(&image);
    for wanted in [
        "/a/dir 750 11:12 /",
        "/a/dir/file 640 11:12 content",
        "/a/dir/hard 640 11:12 content",
        "/a/dir/soft 777 11:12 -> file",
        "/b/dir/file 640 11:12 content",
        "/c/dir/file 640 11:12 content",
        "/d/fake.tar.gz 644 0:0 no archive",
        "/d/plain 644 0:0 p",
        "/f/dir/file 640 1:2 content",
    ] {
        assert!(files.contains(&wanted.to_owned()), "{wanted} in {files:#?}");
    }
    assert!(files.iter().any(|line| line.starts_with("/e/a.tar 644")));
    assert!(files.iter().any(|line| line.starts_with("/g/a.tar 644")));
    assert_eq!(world.metadata(&image, "/a/dir/file").mtime(), 1_000_000);
}

#[test]
fn an_archive_cannot_reach_outside_of_its_destination_or_the_image() {
    let tar = tar_with(&[
        ("../../up", tar::EntryType::Regular, "1"),
        ("/absolute", tar::EntryType::Regular, "2"),
        ("link", tar::EntryType::Symlink, "/etc"),
        ("link/through", tar::EntryType::Regular, "3"),
        ("hard", tar::EntryType::Link, "../../../../../../etc/passwd"),
    ]);
    let mut world = World::new().file("passwd", "images own\n");
    fs::write(world.context.join("bad.tar"), tar).unwrap();
    let error = world.fails("FROM scratch\nADD bad.tar /a/b/\n");
    assert!(error.contains("hard: /a/b/etc/passwd: not found"), "{error}");
    fs::write(
        world.context.join("bad.tar"),
        tar_with(&[
            ("../../up", tar::EntryType::Regular, "1"),
            ("link", tar::EntryType::Symlink, "/etc"),
            ("link/through", tar::EntryType::Regular, "3"),
        ]),
    )
    .unwrap();
    let image = world.build("FROM scratch\nADD bad.tar /a/b/\n");
    assert_eq!(world.text(&image, "/a/b/up"), "1");
    assert_eq!(world.text(&image, "/etc/through"), "3");
    assert!(!Path::new("/etc/through").exists());
}

#[test]
fn an_archive_replaces_what_is_in_its_way() {
    let first =
        tar_with(&[("x/old", tar::EntryType::Regular, "old"), ("y", tar::EntryType::Regular, "file")]);
    let second = tar_with(&[
        ("x", tar::EntryType::Regular, "now a file"),
        ("y/", tar::EntryType::Directory, ""),
        ("y/new", tar::EntryType::Regular, "new"),
    ]);
    let third = tar_with(&[
        ("x", tar::EntryType::Regular, "again"),
        ("x", tar::EntryType::Directory, ""),
        ("x/new", tar::EntryType::Regular, "new"),
    ]);
    let mut world = World::new();
    for (name, tar) in [("1.tar", first), ("2.tar", second), ("3.tar", third)] {
        fs::write(world.context.join(name), tar).unwrap();
    }
    let image = world.build("FROM scratch\nADD 1.tar /\nADD 2.tar /\n");
    assert_eq!((world.text(&image, "/x"), world.text(&image, "/y/new")), ("now a file".into(), "new".into()));
    let image = world.build("FROM scratch\nADD 1.tar /\nADD 3.tar /\n");
    let files: Vec<_> = world.files(&image).into_iter().filter(|line| line.starts_with("/x")).collect();
    assert_eq!(files, ["/x 750 11:12 /", "/x/new 640 11:12 new"], "what a file had replaced stays away");
}

#[test]
fn triggers_of_a_base_run_first_and_only_once() {
    let mut world = World::new().file("f", "f");
    let mut request = world.request("FROM scratch\nONBUILD COPY f /triggered\nONBUILD ENV T=1\n");
    request.tags = vec!["example/base:1".parse().unwrap()];
    let base = world.build_with(&request).unwrap();
    assert_eq!(base.config.config.on_build, ["COPY f /triggered", "ENV T=1"]);
    let child = world.build("FROM example/base:1 AS child\nRUN put /x $T\n");
    assert_eq!(world.text(&child, "/triggered"), "f");
    assert!(child.config.config.env.contains(&"T=1".to_owned()));
    assert!(child.config.config.on_build.is_empty());
    let image = world.build("FROM scratch AS a\nONBUILD RUN put /t t\nFROM a\nFROM a\n");
    assert_eq!(world.text(&image, "/t"), "t");
}

#[test]
fn images_are_bases_and_sources() {
    let mut world = World::new().file("f", "f");
    let mut request =
        world.request("FROM scratch\nCOPY f /lib/f\nENV A=base\nCMD [\"base\"]\nWORKDIR /base\n");
    request.tags = vec!["example/base:1".parse().unwrap()];
    let base = world.build_with(&request).unwrap();
    let image = world.build("ARG TAG=1\nFROM example/base:${TAG}\nRUN put x y\nENTRYPOINT [\"e\"]\n");
    assert_eq!(image.config.rootfs.diff_ids[..2], base.config.rootfs.diff_ids[..]);
    assert_eq!(image.config.config.cmd, None, "an entrypoint of one's own drops the base's command");
    assert_eq!(world.last_step().cwd, Path::new("/base"));
    assert_eq!(world.last_step().lower.len(), 2);
    assert!(image.config.config.env.contains(&"A=base".to_owned()));
    let image = world.build("FROM scratch\nCOPY --from=example/base:1 /lib/f /f\n");
    assert_eq!(world.text(&image, "/f"), "f");
}

#[test]
fn mounts_of_run_show_files_caches_and_secrets() {
    let mut world = World::new().file("src/main", "code");
    let mut request = world.request(
        "FROM scratch AS tools\nRUN put /tool t\nFROM scratch\nRUN --mount=target=/src,source=src --mount=type=bind,from=tools,target=/tools --mount=type=cache,target=/cache --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN --mount=type=tmpfs,target=/t,size=1m put /x y\n",
    );
    let secret = world.context.with_file_name("token");
    fs::write(&secret, "hunter2").unwrap();
    request.secrets = vec![Secret { id: "token".into(), source: SecretSource::File(secret.clone()) }];
    world.build_with(&request).unwrap();
    let step = world.last_step();
    let targets: Vec<_> = step.mounts.iter().map(|mount| mount.target.to_str().unwrap()).collect();
    assert_eq!(targets, ["/src", "/tools", "/cache", "/run/secrets/token", "/t"]);
    assert!(step.env.contains(&"TOKEN=hunter2".to_owned()));
    assert!(step.mounts[0].read_only && !step.mounts[2].read_only);
    fs::write(&secret, "changed").unwrap();
    world.build_with(&request).unwrap();
    assert_eq!(world.cached(), 2, "a secret's value is in no key");
    fs::write(world.context.join("src/main"), "other").unwrap();
    world.build_with(&request).unwrap();
    assert_eq!(world.cached(), 1, "mounted files are");
    let error = world.fails("FROM scratch\nRUN --mount=type=secret,id=none,required=true put /x y\n");
    assert!(error.contains("secret none: not found"), "{error}");
}

#[test]
fn a_slip_of_the_pen_is_told_from_what_is_there() {
    let mut world = World::new();
    fs::write(world.context.join("App.py"), "").unwrap();
    let mut hint = |dockerfile: &str| {
        let request = world.request(dockerfile);
        world.build_with(&request).unwrap_err().hint().unwrap_or_default().to_owned()
    };
    assert_eq!(hint("FROM scratch\nCOPY app.py /\n"), "did you mean /App.py?");
    let from = hint("FROM scratch AS build\nFROM scratch\nCOPY --from=biuld /x /\n");
    assert!(from.ends_with("taken for an image; did you mean build?"), "{from}");
    let from = hint("FROM scratch AS build\nCOPY App.py /\nFROM scratch\nCOPY --from=build /none /\n");
    assert_eq!(from, "paths are those of build, from its root");
}

#[test]
fn independent_stages_all_run_and_the_first_failure_is_told() {
    let mut world = World::new();
    let mut dockerfile = String::new();
    for number in 0..8 {
        dockerfile.push_str(&format!("FROM scratch AS s{number}\nRUN put /f{number} {number}\n"));
    }
    dockerfile.push_str("FROM scratch\n");
    for number in 0..8 {
        dockerfile.push_str(&format!("COPY --from=s{number} /f{number} /\n"));
    }
    let image = world.build(&dockerfile);
    assert_eq!(world.files(&image).len(), 8);
    let error = world.fails(&dockerfile.replace("RUN put /f5 5", "RUN fail 5"));
    assert!(error.ends_with("exit code: 5"), "{error}");
}

#[test]
fn the_same_content_with_a_fixed_date_is_the_same_image_anywhere() {
    let build = || {
        let mut world = World::new().file("a/b", "x");
        fs::File::open(world.context.join("a/b")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        fs::File::open(world.context.join("a")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        let mut request = world.request("FROM scratch\nCOPY a /deep/a\nWORKDIR /w\n");
        request.args.insert("SOURCE_DATE_EPOCH".into(), "1000".into());
        world.build_with(&request).unwrap().id
    };
    assert_eq!(build(), build());
}

#[test]
fn parents_are_kept_when_asked_for() {
    let mut world = World::new().file("a/b/one.txt", "1").file("a/c/two.txt", "2");
    let image = world.build("FROM scratch\nCOPY --parents a/*/*.txt /x/\nCOPY --parents a/./b /y/\n");
    assert_eq!(world.text(&image, "/x/a/b/one.txt"), "1");
    assert_eq!(world.text(&image, "/x/a/c/two.txt"), "2");
    assert_eq!(world.text(&image, "/y/b/one.txt"), "1");
}
