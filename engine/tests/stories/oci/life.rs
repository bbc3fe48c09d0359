//! The life of a container: its verbs, its states, and what others do at its turns.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::shelf::{Runtime, Shelf, by_name, program};
use crate::world::Running;

#[test]
fn a_bundle_goes_through_its_life() {
    let shelf = Shelf::script("echo started; exec sleep 1000");
    let pid_file = shelf.path("pid");
    shelf.create(&["--pid-file", pid_file.to_str().unwrap()]);
    assert_eq!((shelf.status().as_str(), shelf.output().as_str()), ("created", ""));
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert_eq!(shelf.state(Runtime::Ours)["pid"].to_string(), pid);
    shelf.ours(["create", &shelf.id]).exits(1).complains("container with given ID already exists");
    shelf.verb("start").succeeds();
    assert_eq!(shelf.status(), "running");
    shelf.verb("start").exits(1).complains("cannot start an already running container");
    shelf.ours(["exec", &shelf.id, "true"]).succeeds();
    assert_eq!(shelf.output(), "started\n");
    shelf.verb("delete").exits(1).complains("that is not stopped: running");
    shelf.verb("pause").succeeds();
    assert_eq!(shelf.status(), "paused");
    shelf.ours(["exec", &shelf.id, "true"]).exits(255).complains("paused container");
    shelf.verb("resume").succeeds();
    shelf.verb("resume").exits(1).complains("container not paused");
    shelf.ours(["kill", &shelf.id, "FOO"]).exits(1).complains("unknown signal");
    shelf.kill();
    assert_eq!(shelf.status(), "stopped");
    shelf.verb("kill").exits(1).complains("container not running");
    shelf.verb("delete").succeeds();
    shelf.verb("state").exits(1).complains("container does not exist");
    shelf.ours(["delete", "--force", &shelf.id]).succeeds();
    shelf.verb("delete").exits(1);
}

#[test]
fn what_is_told_of_a_container_is_what_runc_tells() {
    let shelf = Shelf::new(&["sleep", "1000"]);
    shelf.change(|config| config["annotations"] = json!({"a": "b"}));
    let told = |runtime| {
        shelf.detach(runtime, &[]);
        let state = shelf.state(runtime);
        let list: Value =
            serde_json::from_str(&shelf.under(runtime, ["list", "-f", "json"]).succeeds().stdout).unwrap();
        let table = shelf.under(runtime, ["list"]).succeeds().stdout;
        let ps: Value =
            serde_json::from_str(&shelf.under(runtime, ["ps", "-f", "json", &shelf.id]).succeeds().stdout)
                .unwrap();
        assert_eq!(ps, json!([state["pid"]]));
        let mut listed = state.clone();
        listed["owner"] = json!("root");
        assert_eq!(list, json!([listed]));
        shelf.under(runtime, ["delete", "-f", &shelf.id]).succeeds();
        let keys: Vec<String> = state.as_object().unwrap().keys().cloned().collect();
        let words: Vec<String> = table.split_whitespace().map(str::to_owned).collect();
        (
            keys,
            state["bundle"].clone(),
            state["rootfs"].clone(),
            state["annotations"].clone(),
            words[..7].to_vec(),
        )
    };
    assert_eq!(told(Runtime::Ours), told(Runtime::Runc));
}

#[test]
fn a_run_ends_with_the_code_of_its_program_and_leaves_nothing() {
    let shelf = Shelf::script("exit 7");
    shelf.ours(["run", &shelf.id]).exits(7);
    shelf.change(|config| config["process"]["args"] = json!(["sh", "-c", "kill -9 $$"]));
    shelf.change(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "pid")
    });
    shelf.ours(["run", &shelf.id]).exits(137);
    shelf.change(|config| config["process"]["args"] = json!(["nope"]));
    for verb in ["run", "create"] {
        shelf.ours([verb, &shelf.id]).exits(1).complains("executable file not found in $PATH");
    }
    shelf.ours(["list", "-q"]).succeeds().prints("");
    shelf.change(|config| config["process"]["args"] = json!(["true"]));
    shelf.ours(["run", "--keep", &shelf.id]).succeeds();
    assert_eq!(shelf.status(), "stopped");
    shelf.verb("delete").succeeds();
    assert_eq!(fs::read_dir(shelf.path("ours")).unwrap().count(), 0);
}

#[test]
fn a_signal_to_a_run_is_one_to_its_program() {
    let shelf = Shelf::script("trap 'exit 9' USR1; echo up; while :; do sleep 1000 & wait $!; done");
    let mut running = Running::start(&mut shelf.command(Runtime::Ours, ["run", &shelf.id]));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(running.output()), &mut line).unwrap();
    running.signal(rustix::process::Signal::USR1);
    running.ends().exits(9);
}

#[test]
fn messages_go_to_the_log_in_the_form_that_is_asked_for() {
    let shelf = Shelf::new(&["true"]);
    let log = shelf.path("log");
    let outcome =
        shelf.ours(["--log", log.to_str().unwrap(), "--log-format", "json", "state", "none"]).exits(1);
    assert_eq!(outcome.stderr, "container does not exist\n");
    let line: Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    assert_eq!((&line["level"], &line["msg"]), (&json!("error"), &json!("container does not exist")));
    shelf.verb("state").exits(1).complains("level=error msg=\"container does not exist\"");
}

#[test]
fn it_answers_to_the_name_of_runc() {
    let shelf = Shelf::new(&["true"]);
    for name in ["runc", "rengine-oci"] {
        let mut command = Command::new(by_name(&shelf, name));
        command.arg("--root").arg(shelf.path("ours")).args(["run", "--bundle"]).arg(shelf.bundle());
        Running::start(command.arg(&shelf.id)).ends().succeeds();
    }
}

#[test]
fn hooks_run_at_their_turns_with_the_state_on_their_standard_input() {
    let shelf = Shelf::script("echo program >> /notes/said; exec sleep 1000");
    let notes = shelf.path("notes");
    fs::create_dir(&notes).unwrap();
    let hook = shelf.path("hook");
    // What is mounted at the root tells where a hook runs: the note of the container's /proc is not the host's.
    program(
        &hook,
        "read -r state; s=${state#*\\\"status\\\":\\\"}; p=${state#*\\\"pid\\\":}; echo \"$1 ${s%%\\\"*} ${p%%,*} $WHO\" >> \"$2\"",
    );
    let outside = notes.join("said");
    shelf.change(|config| {
        let one = |name: &str, path: &str, said: &str| {
            json!([{"path": path, "args": ["hook", name, said], "env": ["WHO=me"], "timeout": 60}])
        };
        let (host, said) = (hook.to_str().unwrap(), outside.to_str().unwrap());
        config["mounts"].as_array_mut().unwrap().push(
            json!({"destination": "/notes", "type": "bind", "source": notes, "options": ["rbind", "rw"]}),
        );
        config["hooks"] = json!({
            "prestart": one("prestart", host, said),
            "createRuntime": one("createRuntime", host, said),
            "createContainer": one("createContainer", host, said),
            "startContainer": one("startContainer", "/bin/note", "/notes/said"),
            "poststart": one("poststart", host, said),
            "poststop": one("poststop", host, said),
        });
    });
    fs::copy(&hook, shelf.bundle().join("rootfs/bin/note")).unwrap();
    let said = || fs::read_to_string(&outside).unwrap();
    shelf.create(&[]);
    let pid = shelf.state(Runtime::Ours)["pid"].to_string();
    let created =
        ["prestart", "createRuntime", "createContainer"].map(|name| format!("{name} creating {pid} me\n"));
    assert_eq!(said(), created.concat());
    shelf.verb("start").succeeds();
    shelf
        .ours(["exec", &shelf.id, "sh", "-c", "until grep -q program /notes/said; do usleep 1000; done"])
        .succeeds();
    shelf.kill();
    shelf.verb("delete").succeeds();
    let rest = said().strip_prefix(&created.concat()).unwrap().to_owned();
    assert!(rest.starts_with(&format!("startContainer created {pid} me\n")), "{rest}");
    for line in [format!("poststart running {pid} me"), "poststop stopped 0 me".into(), "program".into()] {
        assert!(rest.lines().any(|one| one == line), "{line} in {rest}");
    }
}

#[test]
fn a_hook_that_fails_or_hangs_ends_the_container() {
    let shelf = Shelf::new(&["true"]);
    let (fails, hangs) = (shelf.path("fails"), shelf.path("hangs"));
    program(&fails, "echo because >&2; exit 3");
    program(&hangs, "exec sleep 1000");
    for kind in ["prestart", "createRuntime", "createContainer"] {
        shelf.change(|config| config["hooks"] = json!({kind: [{"path": fails}]}));
        let outcome = shelf.ours(["create", &shelf.id]).exits(1);
        let outcome = outcome.complains(&format!("error running {kind} hook #0"));
        outcome.complains("because").complains("exit status: 3");
    }
    shelf.change(|config| config["hooks"] = json!({"prestart": [{"path": hangs, "timeout": 1}]}));
    shelf.ours(["run", &shelf.id]).exits(1).complains("did not end within 1 s");
    shelf.change(|config| config["hooks"] = json!({"startContainer": [{"path": "/bin/false"}]}));
    shelf.create(&[]);
    shelf.verb("start").exits(1).complains("error running startContainer hook #0");
    assert_eq!(shelf.status(), "stopped");
    shelf.verb("delete").succeeds();
    shelf.change(|config| {
        config["hooks"] = json!({"poststart": [{"path": fails}], "poststop": [{"path": fails}]})
    });
    let outcome = shelf.ours(["run", &shelf.id]).succeeds();
    outcome.complains("level=warning msg=\"error running poststart hook #0").complains("poststop hook #0");
    shelf.ours(["list", "-q"]).succeeds().prints("");
}

#[test]
fn limits_are_set_and_changed() {
    let shelf = Shelf::new(&["sleep", "1000"]);
    shelf.change(|config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "reservation": 32 << 20});
        config["linux"]["resources"]["cpu"] = json!({"quota": 50000, "period": 100_000, "shares": 512});
        config["linux"]["resources"]["pids"] = json!({"limit": 33});
    });
    shelf.detach(Runtime::Ours, &[]);
    let first =
        ["memory.limit_in_bytes", "cpu.cfs_quota_us", "cpu.shares", "pids.max"].map(|file| shelf.limit(file));
    assert_eq!(first, ["67108864", "50000", "512", "33"]);
    shelf
        .ours(["update", "--memory", "80m", "--pids-limit", "-1", "--cpu-quota", "70000", &shelf.id])
        .succeeds();
    let second = ["memory.limit_in_bytes", "cpu.cfs_quota_us", "pids.max"].map(|file| shelf.limit(file));
    assert_eq!(second, ["83886080", "70000", "max"]);
    let resources = shelf.path("resources");
    fs::write(&resources, json!({"memory": {"limit": -1}, "pids": {"limit": 5}}).to_string()).unwrap();
    shelf.ours(["update", "-r", resources.to_str().unwrap(), &shelf.id]).succeeds();
    assert_eq!(shelf.limit("pids.max"), "5");
    assert!(shelf.limit("memory.limit_in_bytes").parse::<u64>().unwrap() > 1 << 60);
    let stats = shelf.ours(["events", "--stats", &shelf.id]).succeeds().stdout;
    let stats: Value = serde_json::from_str(&stats).unwrap();
    let memory = &stats["data"]["memory"];
    assert!(memory["usage"]["usage"].as_u64().unwrap() > 0 && memory["raw"]["pgfault"].as_u64().unwrap() > 0);
    assert_eq!(
        (&stats["type"], &stats["data"]["pids"]),
        (&json!("stats"), &json!({"current": 1, "limit": 5}))
    );
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);
}

#[test]
fn a_control_group_with_others_in_it_is_not_taken() {
    let first = Shelf::new(&["sleep", "1000"]);
    first.detach(Runtime::Ours, &[]);
    let second = Shelf::new(&["true"]);
    second.change(|config| config["linux"]["cgroupsPath"] = json!(format!("/{}", first.id)));
    second.ours(["run", &second.id]).exits(1).complains("cgroup is not empty: 1 process(es) found");
    second.ours(["delete", "-f", &second.id]).succeeds();
    assert_eq!(first.status(), "running");
}
