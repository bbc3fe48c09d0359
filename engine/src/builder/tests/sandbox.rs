//! What a command is given besides its layers, and what of it makes it run again.

use super::again::rest;
use super::*;

fn runs(world: &World) -> usize {
    world.runner.steps.lock().unwrap().len()
}

#[test]
fn a_proxy_is_there_in_both_spellings_unless_it_is_declared() {
    let mut world = World::new();
    let mut request = world.request("FROM scratch\nARG https_proxy\nENV no_proxy=own\nRUN x\n");
    for (name, value) in [("HTTP_PROXY", "a"), ("https_proxy", "b"), ("NO_PROXY", "c")] {
        request.args.insert(name.to_owned(), value.to_owned());
    }
    world.build_with(&request).unwrap();
    let mut env = world.runner.steps.lock().unwrap()[0].env.clone();
    env.retain(|pair| !pair.starts_with("PATH="));
    env.sort();
    let wanted =
        ["HTTPS_PROXY=b", "HTTP_PROXY=a", "NO_PROXY=c", "http_proxy=a", "https_proxy=b", "no_proxy=own"];
    assert_eq!(env, wanted);
    request.args.insert("HTTP_PROXY".to_owned(), "elsewhere".to_owned());
    world.build_with(&request).unwrap();
    assert_eq!(runs(&world), 1);
}

#[test]
fn a_command_runs_again_where_it_may_see_something_else() {
    let mut world = World::new();
    let mut request = world.request("FROM scratch\nRUN x\n");
    world.build_with(&request).unwrap();
    request.run.network = NetworkMode::None;
    world.build_with(&request).unwrap();
    assert_eq!(runs(&world), 2);
    request.run.extra_hosts = vec![("mirror".to_owned(), "10.0.0.1".to_owned())];
    world.build_with(&request).unwrap();
    assert_eq!(runs(&world), 3);
    request.run.extra_hosts = vec![("mirror".to_owned(), "10.0.0.2".to_owned())];
    world.build_with(&request).unwrap();
    assert_eq!(runs(&world), 3);
    request.args.insert("BUILDKIT_SANDBOX_HOSTNAME".to_owned(), "own".to_owned());
    world.build_with(&request).unwrap();
    assert_eq!(world.runner.steps.lock().unwrap()[3].hostname, "own");
}

/// The files in the only cache there is.
fn cached(world: &World) -> Vec<String> {
    let caches = fs::read_dir(world.root.build_cache().join("mounts")).unwrap();
    let mut caches = caches.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = fs::read_dir(caches.next().unwrap()).unwrap();
    assert!(caches.next().is_none());
    let mut names: Vec<String> =
        files.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_build_without_cache_begins_its_caches_anew_and_keeps_what_it_puts_there() {
    let mut world = World::new();
    world.build("FROM scratch\nRUN --mount=type=cache,target=/c keep old\n");
    let again = "FROM scratch\nRUN --mount=type=cache,target=/c keep first\n\
                 RUN --mount=type=cache,target=/c keep second\n";
    let request = BuildRequest { cache: CacheUse::None, ..world.request(again) };
    world.build_with(&request).unwrap();
    assert_eq!(cached(&world), ["first", "second"]);
}

#[test]
fn stages_that_run_at_once_begin_a_cache_together() {
    let mut world = World::new();
    let mut dockerfile = String::new();
    for number in 0..8 {
        let run = format!("RUN --mount=type=cache,target=/c,mode=0700 keep {number}");
        dockerfile.push_str(&format!("FROM scratch AS s{number}\n{run}; put /f\n"));
    }
    dockerfile.push_str("FROM scratch\n");
    (0..8).for_each(|number| dockerfile.push_str(&format!("COPY --from=s{number} /f /{number}\n")));
    world.build(&dockerfile);
    assert_eq!(cached(&world), ["0", "1", "2", "3", "4", "5", "6", "7"]);
}

#[test]
fn a_cache_that_begins_with_something_else_is_another_cache() {
    let mut world = World::new().file("seed/a", "1");
    let dockerfile = "FROM scratch\nRUN --mount=type=cache,target=/c,from=seeds,source=/ keep x\n";
    let mut request = world.request(dockerfile);
    request.contexts.insert("seeds".to_owned(), NamedContext::Directory(world.context.join("seed")));
    world.build_with(&request).unwrap();
    assert_eq!(cached(&world), ["a", "x"]);
    let space = ("BUILDKIT_CACHE_MOUNT_NS".to_owned(), "other".to_owned());
    request.args.extend([space]);
    fs::write(world.context.join("seed/b"), "2").unwrap();
    request.cache = CacheUse::None;
    world.build_with(&request).unwrap();
    let caches = fs::read_dir(world.root.build_cache().join("mounts")).unwrap();
    assert_eq!(caches.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), 2);
}

#[test]
fn a_secret_that_is_called_by_a_path_is_a_file_of_its_last_part() {
    let mut world = World::new().file("key", "hush");
    let mut request = world.request("FROM scratch\nRUN --mount=type=secret,id=aws/key x\n");
    let source = SecretSource::File(world.context.join("key"));
    request.secrets.push(Secret { id: "aws/key".to_owned(), source });
    world.build_with(&request).unwrap();
    let steps = world.runner.steps.lock().unwrap();
    assert_eq!(steps[0].mounts[0].target, Path::new("/run/secrets/key"));
}

#[test]
fn a_script_is_told_of_by_its_first_line() {
    let mut world = World::new();
    world.build("FROM scratch\nRUN <<E\nsay one\nsay two\nE\nRUN <<E cat\nsay\nE\n");
    let names: Vec<&str> = (world.events.iter())
        .filter_map(|event| match event {
            BuildEvent::Started { name, .. } if name.contains("RUN") => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(names, ["[1/2] RUN <<E (say one...)", "[2/2] RUN <<E cat"]);
}

#[test]
fn a_cache_with_an_owner_is_not_the_one_without() {
    let mut world = World::new();
    world.build("FROM scratch\nRUN --mount=type=cache,target=/c keep a\n");
    world.build("FROM scratch\nRUN --mount=type=cache,target=/c,uid=7,mode=0700 keep b\n");
    world.build("FROM scratch\nRUN --mount=type=cache,id=/c,target=/d,uid=7,mode=0700 keep c\n");
    let steps = world.runner.steps.lock().unwrap();
    let found: Vec<(u32, usize)> = (steps.iter())
        .map(|step| match &step.mounts[0].source {
            MountSource::Bind { path, .. } => {
                (fs::metadata(path).unwrap().uid(), fs::read_dir(path).unwrap().count())
            }
            _ => panic!("no directory"),
        })
        .collect();
    assert_eq!(found, [(0, 1), (7, 2), (7, 2)]);
}

/// The directory that a command has seen at its only mount.
fn seen(world: &World, step: usize) -> PathBuf {
    let steps = world.runner.steps.lock().unwrap();
    match &steps[step].mounts[0].source {
        MountSource::Bind { path, .. } => path.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_of_the_host_belong_to_root_where_they_are_mounted() {
    let mut world = World::new().file("d/same", "1").file("d/other", "2").file("d/left/out", "3");
    for path in ["d", "d/same"] {
        std::os::unix::fs::chown(world.context.join(path), Some(7), Some(8)).unwrap();
    }
    fs::set_permissions(world.context.join("d"), fs::Permissions::from_mode(0o750)).unwrap();
    let dockerfile = "FROM scratch\nRUN --mount=source=d,target=/t x\n";
    rest(&world);
    world.build(dockerfile);
    let first = seen(&world, 0);
    let metadata = fs::metadata(&first).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (0, 0, 0o750));
    let same = fs::metadata(first.join("same")).unwrap();
    assert_eq!((same.uid(), same.gid()), (0, 0));
    world = world.file("d/other", "4").file(".dockerignore", "d/left");
    rest(&world);
    world.build(dockerfile);
    let second = seen(&world, 1);
    assert_eq!(fs::read_to_string(second.join("other")).unwrap(), "4");
    assert!(!second.join("left").exists());
    assert_eq!(fs::metadata(second.join("same")).unwrap().ino(), same.ino());
    assert_eq!(fs::read_to_string(first.join("other")).unwrap(), "2");
}

#[test]
fn files_that_are_roots_are_mounted_where_they_are() {
    let mut world = World::new().file("d/f", "1");
    let dockerfile =
        "FROM scratch\nRUN --mount=source=d,target=/t x\nRUN --mount=source=d,target=/t,rw keep y\n";
    world.build(dockerfile);
    assert_eq!(seen(&world, 0), fs::canonicalize(world.context.join("d")).unwrap());
    assert!(!world.context.join("d/y").exists());
}

#[test]
fn files_of_several_layers_are_mounted_as_layers() {
    let mut world = World::new();
    world.build(
        "FROM scratch AS made\nRUN put /d/x\nRUN put /d/y\nFROM scratch\nRUN --mount=from=made,source=d,target=/t x\n",
    );
    let steps = world.runner.steps.lock().unwrap();
    let MountSource::Image { lower, .. } = &steps[2].mounts[0].source else { panic!("not layers") };
    assert_eq!(lower.iter().map(|part| part.join("y").exists()).collect::<Vec<_>>(), [true, false]);
}
