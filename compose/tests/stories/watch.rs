//! `watch`: what changes on the host arrives in the containers.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStderr, Command};

use crate::world::World;

/// A `watch` that runs, and what it says.
struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    said: Vec<String>,
}

impl Watch {
    /// Starts it and waits until it watches.
    fn start(world: &World, arguments: &[&str]) -> Self {
        let mut child = world.spawn(arguments);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut watch = Self { child, lines, said: Vec::new() };
        watch.until("Watch enabled");
        watch
    }

    /// Waits until it says this.
    #[track_caller]
    fn until(&mut self, text: &str) {
        for line in self.lines.by_ref().map_while(Result::ok) {
            let found = line.contains(text);
            self.said.push(line);
            if found {
                return;
            }
        }
        panic!("it never said {text:?} but\n{}", self.said.join("\n"));
    }

    /// How many directories the kernel watches for it.
    fn kernel_watches(&self) -> usize {
        let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", self.child.id())).unwrap();
        descriptors
            .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
            .map(|text| text.lines().filter(|line| line.starts_with("inotify wd:")).count())
            .sum()
    }

    /// Ends it as Ctrl-C does.
    fn interrupt(mut self) -> i32 {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_saved_file_arrives_in_an_image_that_has_nothing_but_its_program() {
    let world = World::new(
        r#"
services:
  web:
    build: .
    command: ["/busybox", "sleep", "1000"]
    stop_grace_period: 0s
    read_only: true
    user: "1000"
    scale: 2
    develop:
      watch:
        - {action: sync, path: ./src, target: /app, ignore: [node_modules, "*.log"]}
"#,
    );
    world.write(
        "Dockerfile",
        "FROM box AS box\nFROM scratch\nCOPY --from=box /bin/busybox /busybox\nCOPY src /app\n",
    );
    world.write(".dockerignore", "node_modules\n");
    world.write("src/main", "one\n");
    for number in 0..50 {
        world.write(&format!("src/node_modules/{number}/file"), "ignored");
    }
    let mut watch = Watch::start(&world, &["watch"]);
    assert!(watch.kernel_watches() <= 2, "what is ignored is not watched");
    let read = |index: &str, path: &str| {
        world.rcompose(["exec", "-T", "--index", index, "web", "/busybox", "cat", path])
    };
    world.save("src/main", "two\n");
    watch.until("synced");
    assert_eq!(read("1", "/app/main").succeeds().stdout, "two\n");
    assert_eq!(read("2", "/app/main").succeeds().stdout, "two\n");
    // A directory that is new is looked into, and what is ignored stays where it is.
    world.write("src/noise.log", "ignored");
    world.save("src/deep/er/file", "new\n");
    watch.until("synced");
    while read("1", "/app/deep/er/file").code != 0 {
        watch.until("synced");
    }
    assert_eq!(read("1", "/app/deep/er/file").succeeds().stdout, "new\n");
    assert_ne!(read("1", "/app/noise.log").code, 0);
    // As editors save: a file of another name takes the place of the old one.
    world.save("src/main", "three\n");
    watch.until("synced");
    assert_eq!(read("2", "/app/main").succeeds().stdout, "three\n");
    fs::set_permissions(world.project().join("src/main"), fs::Permissions::from_mode(0o751)).unwrap();
    watch.until("synced");
    let mode = ["exec", "-T", "web", "/busybox", "stat", "-c", "%a", "/app/main"];
    assert_eq!(world.rcompose(mode).succeeds().stdout, "751\n");
    fs::remove_file(world.project().join("src/main")).unwrap();
    watch.until("synced");
    assert_ne!(read("1", "/app/main").code, 0, "what is gone here is gone there");
    assert_eq!(watch.interrupt(), 130);
    assert_eq!(world.running(), ["p-web-1", "p-web-2"], "the services go on");
}

/// What is below a directory: kinds, links and contents.
const LOOK: &str = "find . | sort | while read f; do if [ -L $f ]; then echo $f to $(readlink $f); elif [ -d $f ]; then echo $f/; else echo $f: $(cat $f); fi; done";

#[test]
fn whatever_becomes_of_files_and_directories_the_container_has_what_the_host_has() {
    let world = World::new(
        r#"
services:
  web:
    image: box
    command: [sleep, "1000"]
    stop_grace_period: 0s
    develop:
      watch: [{path: ./site, action: sync, target: /site, initial_sync: true}]
"#,
    );
    let site = world.project().join("site");
    world.write("site/file", "file\n");
    world.write("site/directory/inner", "inner\n");
    world.write("site/moved/away/inner", "inner\n");
    world.write("site/kept/inner", "inner\n");
    std::os::unix::fs::symlink("kept", site.join("link")).unwrap();
    world.rcompose(["up", "-d"]).succeeds();
    let mut watch = Watch::start(&world, &["watch", "--no-up"]);
    let same = |world: &World| {
        let here = Command::new("sh").args(["-c", LOOK]).current_dir(&site).output().unwrap().stdout;
        let there = world.inside("web", &format!("cd /site; {LOOK}"));
        (String::from_utf8(here).unwrap(), there)
    };
    // While it is stopped, all of it is one batch, and nothing is seen halfway.
    let signal = |name: &str, child: &Child| {
        Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    };
    signal("-STOP", &watch.child);
    fs::remove_file(site.join("file")).unwrap();
    world.write("site/file/inner", "a directory now\n");
    fs::remove_dir_all(site.join("directory")).unwrap();
    world.write("site/directory", "a file now\n");
    fs::remove_file(site.join("link")).unwrap();
    world.write("site/link/inner", "a directory now\n");
    fs::rename(site.join("moved"), world.project().join("elsewhere")).unwrap();
    fs::create_dir(site.join("empty")).unwrap();
    signal("-CONT", &watch.child);
    watch.until("synced");
    let (here, there) = same(&world);
    assert_eq!(there, here);
    // More than the kernel's queue holds: what is gone is found by looking.
    let limit: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    for number in 0..20 {
        world.write(&format!("site/many/{number}"), "one of many\n");
    }
    watch.until("synced");
    signal("-STOP", &watch.child);
    for turn in 0..=limit / 2 {
        let path = site.join(format!("storm-{}", turn % 2));
        fs::write(&path, "x").unwrap();
        fs::remove_file(&path).unwrap();
    }
    for number in 0..10 {
        fs::remove_file(site.join(format!("many/{number}"))).unwrap();
    }
    fs::remove_dir_all(site.join("kept")).unwrap();
    world.write("site/last", "last\n");
    signal("-CONT", &watch.child);
    watch.until("synced");
    // What was said before may have been about the many; one more change is told of after all that came before it.
    for turn in 0..200 {
        let (here, there) = same(&world);
        if there == here {
            break;
        }
        world.write("site/turn", &format!("{turn}\n"));
        watch.until("synced");
    }
    let (here, there) = same(&world);
    assert_eq!(there, here);
    assert!(there.contains("./last: last") && !there.contains("kept"), "{there}");
}

#[test]
fn one_save_is_one_restart() {
    let world = World::new(
        r#"
services:
  web:
    image: box
    command: ["sleep", "1000"]
    stop_grace_period: 0s
    develop:
      watch:
        - {action: sync+restart, path: ./src, target: /app, initial_sync: true}
        - {action: sync, path: ./mark, target: /mark}
"#,
    );
    world.write("src/main", "zero\n");
    world.write("mark/file", "");
    let mut watch = Watch::start(&world, &["watch"]);
    assert_eq!(world.inside("web", "cat /app/main"), "zero\n");
    for text in ["one\n", "two\n", "three\n"] {
        world.save("src/main", text);
        watch.until("restarted");
        assert_eq!(world.inside("web", "cat /app/main"), text);
    }
    world.save("mark/file", "now");
    watch.until("synced");
    let restarts = watch.said.iter().filter(|line| line.contains("restarted")).count();
    assert_eq!(restarts, 3, "{}", watch.said.join("\n"));
}

#[test]
fn a_rule_rebuilds_or_runs_a_command_when_its_files_change() {
    let world = World::new(
        r#"
services:
  web:
    build: src
    command: [sleep, "1000"]
    stop_grace_period: 0s
    develop:
      watch:
        - {action: rebuild, path: ./src, include: ["*.txt", Dockerfile]}
        - {action: sync+exec, path: ./conf, target: /conf, exec: {command: ["sh", "-c", "cat /conf/a > /draft; mv /draft /reloaded"]}}
"#,
    );
    world.write("src/Dockerfile", "FROM box\nCOPY page.txt /page\n");
    world.write("src/page.txt", "one\n");
    world.write("conf/a", "one\n");
    let mut watch = Watch::start(&world, &["watch"]);
    let first = world.ids_of("web");
    world.save("conf/a", "two\n");
    watch.until("synced");
    world.write("src/unrelated", "nothing\n");
    world.save("src/page.txt", "two\n");
    watch.until("successfully built");
    assert_ne!(world.ids_of("web"), first);
    assert_eq!(world.inside("web", "cat /page"), "two\n");
    world.save("conf/a", "three\n");
    watch.until("synced");
    // The command runs behind the line about the files; the next change is handled behind the command. It runs
    // once more for that change, which is why it puts its result in place as a whole.
    world.save("conf/b", "");
    watch.until("synced");
    assert_eq!(world.inside("web", "cat /reloaded"), "three\n");
}

#[test]
fn a_project_without_rules_cannot_be_watched() {
    let world = World::new("services: {web: {image: box, command: [sleep, \"1000\"]}}\n");
    let watch = world.rcompose(["watch", "--no-up"]);
    assert_eq!(watch.code, 1);
    assert!(
        watch.stderr.contains("none of the selected services is configured for watch"),
        "{}",
        watch.stderr
    );
}
