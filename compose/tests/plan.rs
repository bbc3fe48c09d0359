//! What is done about what: a project, what exists of it, and the text of the plan.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;

use compose::desired::{
    Desired, DesiredImage, DesiredNetwork, DesiredService, DesiredVolume, ImagePolicy, Needs, OnFailure,
    Update,
};
use compose::names::Separator;
use compose::observe::{Life, Observed, SeenContainer, SeenNetwork, SeenVolume};
use compose::operation::Milestone;
use compose::plan::down::{DownOptions, Images, down};
use compose::plan::images::{self, Building};
use compose::plan::rollback::rollback;
use compose::plan::stages::Stages;
use compose::plan::up::{Orphans, Recreate, UpOptions, up};
use compose::plan::verbs::{Verb, apply};
use compose::plan::{Plan, PlanError};
use engine::id::{ContainerId, Digest, ImageId, NetworkId};
use jiff::Timestamp;

/// A project called `p` and what exists of it.
struct World {
    desired: Desired,
    seen: Observed,
    options: UpOptions,
}

fn id(letter: char) -> ContainerId {
    letter.to_string().repeat(64).parse().unwrap()
}

fn image(name: &str) -> ImageId {
    Digest::of(name.as_bytes())
}

fn service(image: &str) -> DesiredService {
    DesiredService {
        scale: 1,
        container_name: None,
        config_hash: "h1".to_owned(),
        contents: compose::contents::Contents::default(),
        image: DesiredImage {
            name: image.to_owned(),
            named: true,
            buildable: false,
            policy: ImagePolicy::Missing,
        },
        depends_on: std::collections::BTreeMap::new(),
        shares: std::collections::BTreeSet::new(),
        networks: std::collections::BTreeSet::new(),
        volumes: std::collections::BTreeSet::new(),
        builds_from: std::collections::BTreeSet::new(),
        provider: None,
        models: std::collections::BTreeSet::new(),
        update: None,
        rollback: Update::default(),
    }
}

impl World {
    fn new() -> Self {
        let desired = Desired { project: "p".to_owned(), separator: Separator::Dash, ..Desired::default() };
        Self { desired, seen: Observed::default(), options: UpOptions::default() }
    }

    /// A service whose image is here.
    fn service(mut self, name: &str) -> Self {
        self.seen.images.insert("box".to_owned(), image("box"));
        self.desired.services.insert(name.to_owned(), service("box"));
        self
    }

    fn change(mut self, name: &str, change: impl FnOnce(&mut DesiredService)) -> Self {
        change(self.desired.services.get_mut(name).unwrap());
        self
    }

    fn needs(self, name: &str, other: &str, milestone: Milestone) -> Self {
        let needs = Needs { milestone, ..Needs::default() };
        self.change(name, |service| {
            service.depends_on.insert(other.to_owned(), needs);
        })
    }

    fn restarts_with(self, name: &str, other: &str) -> Self {
        let needs = Needs { restart: true, ..Needs::default() };
        self.change(name, |service| {
            service.depends_on.insert(other.to_owned(), needs);
        })
    }

    fn scale(self, name: &str, scale: u32) -> Self {
        self.change(name, |service| service.scale = scale)
    }

    fn network(mut self, key: &str, users: &[&str]) -> Self {
        let network =
            DesiredNetwork { name: format!("p_{key}"), external: false, config_hash: "n1".to_owned() };
        self.desired.networks.insert(key.to_owned(), network);
        for user in users {
            self = self.change(user, |service| {
                service.networks.insert(key.to_owned());
            });
        }
        self
    }

    fn volume(mut self, key: &str, users: &[&str]) -> Self {
        let volume =
            DesiredVolume { name: format!("p_{key}"), external: false, config_hash: "v1".to_owned() };
        self.desired.volumes.insert(key.to_owned(), volume);
        for user in users {
            self = self.change(user, |service| {
                service.volumes.insert(key.to_owned());
            });
        }
        self
    }

    /// All networks and volumes exist as they are wanted.
    fn with_resources(mut self) -> Self {
        for (key, network) in &self.desired.networks {
            let seen = SeenNetwork {
                id: NetworkId::random(),
                project: Some("p".to_owned()),
                key: key.clone(),
                config_hash: network.config_hash.clone(),
            };
            self.seen.networks.insert(network.name.clone(), seen);
        }
        for (key, volume) in &self.desired.volumes {
            let seen = SeenVolume {
                project: Some("p".to_owned()),
                key: key.clone(),
                config_hash: volume.config_hash.clone(),
            };
            self.seen.volumes.insert(volume.name.clone(), seen);
        }
        self
    }

    /// A container as `up` would have made it.
    fn has(mut self, letter: char, service: &str, number: u32, life: Life) -> Self {
        let wanted = self.desired.services.get(service);
        let container = SeenContainer {
            id: id(letter),
            name: self.desired.container_name(service, number),
            service: service.to_owned(),
            number,
            one_off: false,
            life,
            ended_well: (life == Life::Exited(0)).then_some(Timestamp::UNIX_EPOCH),
            health: None,
            config_hash: "h1".to_owned(),
            contents: String::new(),
            held: false,
            parents: std::collections::BTreeSet::new(),
            image: image("box"),
            networks: wanted
                .into_iter()
                .flat_map(|wanted| &wanted.networks)
                .map(|key| format!("p_{key}"))
                .collect(),
            volumes: wanted
                .into_iter()
                .flat_map(|wanted| &wanted.volumes)
                .map(|key| format!("p_{key}").parse().unwrap())
                .collect(),
            created: 0,
        };
        self.seen.containers.push(container);
        self
    }

    fn where_it(mut self, change: impl FnOnce(&mut SeenContainer)) -> Self {
        change(self.seen.containers.last_mut().unwrap());
        self
    }

    fn with(mut self, change: impl FnOnce(&mut UpOptions)) -> Self {
        change(&mut self.options);
        self
    }

    fn up(&self) -> Plan {
        up(&self.desired, &self.seen, &self.options).unwrap()
    }

    fn up_fails(&self) -> PlanError {
        up(&self.desired, &self.seen, &self.options).unwrap_err()
    }

    fn down(&self, options: &DownOptions) -> Plan {
        down(&self.desired, &self.seen, options).unwrap()
    }

    fn apply(&self, services: &[&str], verb: Verb) -> Plan {
        let services: Vec<String> = services.iter().map(|&name| name.to_owned()).collect();
        apply(&self.desired, &self.seen, &services, verb).unwrap()
    }
}

#[track_caller]
fn assert_plan(plan: &Plan, lines: &[&str]) {
    assert_eq!(plan.to_string(), lines.join("\n"), "\n{plan}\n");
}

#[test]
fn the_first_up_makes_what_each_container_needs_and_waits_for_no_more() {
    let world = World::new()
        .service("db")
        .service("web")
        .needs("web", "db", Milestone::Started)
        .network("default", &["db", "web"])
        .volume("data", &["db"]);
    assert_plan(
        &world.up(),
        &[
            "1 network p_default: create (missing)",
            "2 volume p_data: create (missing)",
            "3 container p-db-1: create (missing) after 1, 2",
            "4 container p-web-1: create (missing) after 1",
            "5 container p-db-1: start (missing) after 1, 3",
            "6 container p-web-1: start (missing) after 1, 4, 5",
        ],
    );
}

#[test]
fn a_second_up_does_nothing() {
    let world = World::new()
        .service("db")
        .service("web")
        .needs("web", "db", Milestone::Healthy)
        .network("default", &["db", "web"])
        .volume("data", &["db"])
        .with_resources()
        .has('a', "db", 1, Life::Running)
        .has('b', "web", 1, Life::Running);
    assert_plan(&world.up(), &["nothing to do"]);
}

#[test]
fn a_changed_service_alone_is_recreated() {
    let world = World::new()
        .service("db")
        .service("web")
        .has('a', "db", 1, Life::Running)
        .has('b', "web", 1, Life::Running)
        .change("web", |web| web.config_hash = "h2".to_owned());
    assert_plan(
        &world.up(),
        &[
            "1 container p-web-1: rename to bbbbbbbbbbbb_p-web-1 (configuration changed)",
            "2 container p-web-1: create in place of bbbbbbbbbbbb (configuration changed) after 1",
            "3 container p-web-1: stop (replaced) after 2",
            "4 container p-web-1: start (configuration changed) after 2, 3",
            "5 container p-web-1: remove (replaced) after 4",
        ],
    );
}

#[test]
fn a_new_image_recreates_and_a_stopped_container_needs_no_stop() {
    let world = World::new()
        .service("web")
        .has('b', "web", 1, Life::Exited(0))
        .where_it(|web| web.image = image("older"));
    assert_plan(
        &world.up(),
        &[
            "1 container p-web-1: rename to bbbbbbbbbbbb_p-web-1 (image changed)",
            "2 container p-web-1: create in place of bbbbbbbbbbbb (image changed) after 1",
            "3 container p-web-1: start (image changed) after 2",
            "4 container p-web-1: remove (replaced) after 3",
        ],
    );
}

#[test]
fn what_an_anonymous_volume_keeps_of_an_old_image_is_told() {
    let volume: engine::id::VolumeName = "a".repeat(64).parse().unwrap();
    let mut world = World::new().service("web").has('a', "web", 1, Life::Running).where_it(|web| {
        web.image = image("older");
        web.volumes.insert("a".repeat(64).parse().unwrap());
    });
    assert_eq!(world.up().warnings(), [""; 0], "a volume with a name is somebody's");
    world.seen.anonymous.insert(volume);
    let said =
        "container p-web-1: its image has changed, and its volumes without a name keep what was in them";
    assert!(world.up().warnings()[0].starts_with(said), "{:?}", world.up().warnings());
    assert_eq!(world.with(|options| options.renew_volumes = true).up().warnings(), [""; 0]);
}

#[test]
fn anonymous_volumes_go_with_the_old_container_only_when_they_are_renewed() {
    let world = World::new()
        .service("web")
        .has('b', "web", 1, Life::Exited(0))
        .with(|options| options.recreate = Recreate::Always)
        .with(|options| options.renew_volumes = true);
    assert!(world.up().to_string().ends_with("4 container p-web-1: remove with volumes (replaced) after 3"));
}

#[test]
fn what_has_stopped_is_started_again() {
    let world = World::new()
        .service("db")
        .service("web")
        .needs("web", "db", Milestone::Healthy)
        .has('a', "db", 1, Life::Exited(137))
        .has('b', "web", 1, Life::Created);
    assert_plan(
        &world.up(),
        &[
            "1 container p-db-1: start (not running)",
            "2 service db: wait until healthy (asked) after 1",
            "3 container p-web-1: start (not running) after 2",
        ],
    );
}

#[test]
fn health_is_waited_for_once_however_many_wait() {
    let world = World::new()
        .service("db")
        .service("web")
        .service("worker")
        .needs("web", "db", Milestone::Healthy)
        .needs("worker", "db", Milestone::Healthy)
        .has('a', "db", 1, Life::Running);
    assert_plan(
        &world.up(),
        &[
            "1 container p-web-1: create (missing)",
            "2 container p-worker-1: create (missing)",
            "3 service db: wait until healthy (asked)",
            "4 container p-web-1: start (missing) after 1, 3",
            "5 container p-worker-1: start (missing) after 2, 3",
        ],
    );
}

#[test]
fn a_job_runs_before_those_that_wait_for_its_end() {
    let world = World::new().service("job").service("web").needs("web", "job", Milestone::Completed);
    assert_plan(
        &world.up(),
        &[
            "1 container p-job-1: create (missing)",
            "2 container p-web-1: create (missing)",
            "3 container p-job-1: start (missing) after 1",
            "4 service job: wait until completed (asked) after 3",
            "5 container p-web-1: start (missing) after 2, 4",
        ],
    );
}

#[test]
fn what_runs_already_needs_what_is_started_beside_it() {
    let world = World::new()
        .service("db")
        .service("job")
        .service("web")
        .needs("web", "job", Milestone::Completed)
        .needs("web", "db", Milestone::Healthy)
        .has('a', "db", 1, Life::Running)
        .has('b', "job", 1, Life::Exited(1))
        .has('c', "web", 1, Life::Running);
    assert_plan(
        &world.up(),
        &["1 container p-job-1: start (not running)", "2 service job: wait until completed (asked) after 1"],
    );
}

#[test]
fn a_finished_job_runs_again_for_a_command_of_its_own() {
    let world = World::new()
        .service("job")
        .service("web")
        .needs("web", "job", Milestone::Completed)
        .has('a', "job", 1, Life::Exited(0))
        .with(|options| {
            options.services = vec!["web".to_owned()];
            options.one_off_of = Some("web".to_owned());
        });
    let plan = world.up().to_string();
    assert!(plan.contains("container p-job-1: start (not running)"), "{plan}");
}

#[test]
fn a_finished_job_runs_again_only_when_something_starts_that_waits_for_it() {
    let world = World::new().service("job").service("web").needs("web", "job", Milestone::Completed).has(
        'a',
        "job",
        1,
        Life::Exited(0),
    );
    assert_plan(&world.clone_with('b', "web", Life::Running).up(), &["nothing to do"]);
    assert_plan(
        &world.clone_with('b', "web", Life::Exited(0)).up(),
        &[
            "1 container p-job-1: start (not running)",
            "2 service job: wait until completed (asked) after 1",
            "3 container p-web-1: start (not running) after 2",
        ],
    );
}

impl World {
    fn clone_with(&self, letter: char, service: &str, life: Life) -> Self {
        let copy =
            Self { desired: self.desired.clone(), seen: self.seen.clone(), options: self.options.clone() };
        copy.has(letter, service, 1, life)
    }
}

#[test]
fn a_dependency_that_is_not_required_is_waited_for_with_patience() {
    let world = World::new().service("cache").service("web").change("web", |web| {
        let needs = Needs { milestone: Milestone::Healthy, restart: false, required: false };
        web.depends_on.insert("cache".to_owned(), needs);
    });
    assert_plan(
        &world.up(),
        &[
            "1 container p-cache-1: create (missing)",
            "2 container p-web-1: create (missing)",
            "3 container p-cache-1: start (missing) after 1",
            "4 service cache: wait until healthy if it can be (asked) after 3",
            "5 container p-web-1: start (missing) after 2, 4",
        ],
    );
}

#[test]
fn a_dependent_restarts_with_what_is_replaced_when_it_says_so() {
    let world = World::new()
        .service("db")
        .service("web")
        .restarts_with("web", "db")
        .has('a', "db", 1, Life::Running)
        .has('b', "web", 1, Life::Running)
        .change("db", |db| db.config_hash = "h2".to_owned());
    assert_plan(
        &world.up(),
        &[
            "1 container p-db-1: rename to aaaaaaaaaaaa_p-db-1 (configuration changed)",
            "2 container p-db-1: create in place of aaaaaaaaaaaa (configuration changed) after 1",
            "3 container p-web-1: stop (restarts with db, which is recreated) after 2",
            "4 container p-db-1: stop (replaced) after 2, 3",
            "5 container p-db-1: start (configuration changed) after 2, 4",
            "6 container p-db-1: remove (replaced) after 5",
            "7 container p-web-1: start (restarts with db, which is recreated) after 3, 5",
        ],
    );
}

#[test]
fn whoever_shares_a_namespace_is_recreated_with_its_owner() {
    let world = World::new()
        .service("vpn")
        .service("web")
        .restarts_with("web", "vpn")
        .change("web", |web| {
            web.shares.insert("vpn".to_owned());
        })
        .has('a', "vpn", 1, Life::Running)
        .has('b', "web", 1, Life::Running)
        .change("vpn", |vpn| vpn.config_hash = "h2".to_owned());
    assert_plan(
        &world.up(),
        &[
            "1 container p-vpn-1: rename to aaaaaaaaaaaa_p-vpn-1 (configuration changed)",
            "2 container p-web-1: rename to bbbbbbbbbbbb_p-web-1 (shares with vpn, which is recreated)",
            "3 container p-vpn-1: create in place of aaaaaaaaaaaa (configuration changed) after 1",
            "4 container p-web-1: create in place of bbbbbbbbbbbb (shares with vpn, which is recreated) after 2, 3",
            "5 container p-web-1: stop (replaced) after 4",
            "6 container p-vpn-1: stop (replaced) after 3, 5",
            "7 container p-vpn-1: start (configuration changed) after 3, 6",
            "8 container p-vpn-1: remove (replaced) after 7",
            "9 container p-web-1: start (shares with vpn, which is recreated) after 4, 5, 7",
            "10 container p-web-1: remove (replaced) after 9",
        ],
    );
}

#[test]
fn scaling_up_counts_on_from_the_highest_number() {
    let world = World::new().service("web").has('c', "web", 3, Life::Running).scale("web", 3);
    assert_plan(
        &world.up(),
        &[
            "1 container p-web-4: create (scaled up)",
            "2 container p-web-5: create (scaled up)",
            "3 container p-web-4: start (scaled up) after 1",
            "4 container p-web-5: start (scaled up) after 2",
        ],
    );
}

#[test]
fn scaling_down_takes_obsolete_containers_first_and_then_the_highest_numbers() {
    let world = World::new()
        .service("web")
        .has('a', "web", 1, Life::Running)
        .where_it(|web| web.config_hash = "h0".to_owned())
        .has('b', "web", 2, Life::Running)
        .has('c', "web", 3, Life::Running);
    assert_plan(
        &world.clone_scaled(1).up(),
        &[
            "1 container p-web-1: stop (scaled down)",
            "2 container p-web-1: remove with volumes (scaled down) after 1",
            "3 container p-web-3: stop (scaled down)",
            "4 container p-web-3: remove with volumes (scaled down) after 3",
        ],
    );
    assert_eq!(world.clone_scaled(0).up().steps().len(), 6);
}

impl World {
    fn clone_scaled(&self, scale: u32) -> Self {
        let copy =
            Self { desired: self.desired.clone(), seen: self.seen.clone(), options: self.options.clone() };
        copy.scale("web", scale)
    }
}

#[test]
fn a_run_that_was_cut_off_is_gone_on_from() {
    // Cut off after the rename, before the creation: the old one is replaced as if nothing had been.
    let renamed = World::new()
        .service("web")
        .has('a', "web", 1, Life::Running)
        .where_it(|web| web.name = "aaaaaaaaaaaa_p-web-1".to_owned())
        .where_it(|web| web.config_hash = "h0".to_owned());
    assert_plan(
        &renamed.up(),
        &[
            "1 container p-web-1: create in place of aaaaaaaaaaaa (configuration changed)",
            "2 container aaaaaaaaaaaa_p-web-1: stop (replaced) after 1",
            "3 container p-web-1: start (configuration changed) after 1, 2",
            "4 container aaaaaaaaaaaa_p-web-1: remove (replaced) after 3",
        ],
    );
    // Cut off after the creation: the new one is kept and the old one goes.
    let created = renamed.has('b', "web", 1, Life::Created);
    assert_plan(
        &created.up(),
        &[
            "1 container aaaaaaaaaaaa_p-web-1: stop (left over)",
            "2 container aaaaaaaaaaaa_p-web-1: remove (left over) after 1",
            "3 container p-web-1: start (not running) after 1",
        ],
    );
}

#[test]
fn an_old_container_gets_its_name_back_when_the_change_is_taken_back() {
    let world = World::new()
        .service("web")
        .has('a', "web", 1, Life::Exited(143))
        .where_it(|web| web.name = "aaaaaaaaaaaa_p-web-1".to_owned())
        .has('b', "web", 1, Life::Created)
        .where_it(|web| web.config_hash = "h2".to_owned());
    assert_plan(
        &world.up(),
        &[
            "1 container p-web-1: remove (left over)",
            "2 container aaaaaaaaaaaa_p-web-1: rename to p-web-1 (left over) after 1",
            "3 container aaaaaaaaaaaa_p-web-1: start (not running) after 2",
        ],
    );
}

#[test]
fn only_the_asked_services_and_their_dependencies_are_touched() {
    let world = World::new()
        .service("db")
        .service("other")
        .service("web")
        .needs("web", "db", Milestone::Started)
        .with(|options| options.services = vec!["web".to_owned()]);
    assert_plan(
        &world.up(),
        &[
            "1 container p-db-1: create (missing)",
            "2 container p-web-1: create (missing)",
            "3 container p-db-1: start (missing) after 1",
            "4 container p-web-1: start (missing) after 2, 3",
        ],
    );
    assert_plan(
        &world.with(|options| options.no_dependencies = true).up(),
        &["1 container p-web-1: create (missing)", "2 container p-web-1: start (missing) after 1"],
    );
}

#[test]
fn forcing_recreates_the_asked_services_and_not_their_dependencies() {
    let world = World::new()
        .service("db")
        .service("web")
        .needs("web", "db", Milestone::Started)
        .has('a', "db", 1, Life::Running)
        .has('b', "web", 1, Life::Running)
        .with(|options| options.recreate = Recreate::Always)
        .with(|options| options.services = vec!["web".to_owned()]);
    let text = world.up().to_string();
    assert!(text.contains("create in place of bbbbbbbbbbbb (asked)"), "{text}");
    assert!(!text.contains("p-db-1"), "{text}");
}

#[test]
fn never_recreating_leaves_a_changed_container_as_it_is() {
    let world = World::new()
        .service("web")
        .has('b', "web", 1, Life::Running)
        .change("web", |web| web.config_hash = "h2".to_owned())
        .with(|options| options.recreate = Recreate::Never);
    assert_plan(&world.up(), &["nothing to do"]);
}

#[test]
fn create_starts_nothing() {
    let world =
        World::new().service("web").network("default", &["web"]).with(|options| options.start = false);
    assert_plan(
        &world.up(),
        &["1 network p_default: create (missing)", "2 container p-web-1: create (missing) after 1"],
    );
}

#[test]
fn orphans_are_named_removed_or_ignored() {
    let mut world =
        World::new().service("web").has('b', "web", 1, Life::Running).has('d', "old", 1, Life::Running);
    let plan = world.up();
    assert!(plan.is_empty());
    assert!(plan.warnings()[0].contains("found orphan containers (p-old-1)"), "{:?}", plan.warnings());
    world.options.orphans = Orphans::Remove;
    assert_plan(
        &world.up(),
        &["1 container p-old-1: stop (orphan)", "2 container p-old-1: remove (orphan) after 1"],
    );
    world.options.orphans = Orphans::Ignore;
    assert!(world.up().warnings().is_empty());
    world.options.orphans = Orphans::Warn;
    world.desired.disabled.insert("old".to_owned());
    assert!(world.up().warnings().is_empty(), "a service without an active profile is no orphan");
}

#[test]
fn a_changed_network_is_emptied_and_made_anew_under_its_containers() {
    let world = World::new()
        .service("db")
        .service("web")
        .needs("web", "db", Milestone::Started)
        .network("default", &["db", "web"])
        .with_resources()
        .has('a', "db", 1, Life::Running)
        .has('b', "web", 1, Life::Running);
    let mut world = world;
    world.seen.networks.get_mut("p_default").unwrap().config_hash = "n0".to_owned();
    assert_plan(
        &world.up(),
        &[
            "1 container p-web-1: stop (network p_default changed)",
            "2 container p-db-1: stop (network p_default changed)",
            "3 network p_default: remove (configuration changed) after 1, 2",
            "4 network p_default: create (configuration changed) after 3",
            "5 container p-db-1: start (network p_default changed) after 2, 4",
            "6 container p-web-1: start (network p_default changed) after 1, 4, 5",
        ],
    );
}

#[test]
fn a_network_that_is_made_anew_for_one_service_leaves_the_others_running() {
    let mut world = World::new()
        .service("db")
        .service("web")
        .service("other")
        .needs("web", "db", Milestone::Started)
        .network("default", &["db", "web", "other"])
        .with_resources()
        .has('a', "db", 1, Life::Running)
        .has('b', "other", 1, Life::Running)
        .has('c', "web", 1, Life::Running)
        .with(|options| options.services = vec!["db".to_owned()]);
    world.seen.networks.get_mut("p_default").unwrap().config_hash = "n0".to_owned();
    assert_plan(
        &world.up(),
        &[
            "1 container p-db-1: stop (network p_default changed)",
            "2 container p-other-1: stop (network p_default changed)",
            "3 container p-web-1: stop (network p_default changed)",
            "4 network p_default: remove (configuration changed) after 1, 2, 3",
            "5 network p_default: create (configuration changed) after 4",
            "6 container p-db-1: start (network p_default changed) after 1, 5",
            "7 container p-other-1: start (network p_default changed) after 2, 5",
            "8 container p-web-1: start (network p_default changed) after 3, 5, 6",
        ],
    );
}

#[test]
fn what_no_service_uses_is_made_only_when_all_resources_are_asked_for() {
    let mut world = World::new().service("web").network("spare", &[]).volume("kept", &[]);
    assert!(!world.up().to_string().contains("spare"));
    world.options.all_resources = true;
    let plan = world.up().to_string();
    assert!(plan.contains("network p_spare: create (missing)"), "{plan}");
    assert!(plan.contains("volume p_kept: create (missing)"), "{plan}");
}

#[test]
fn a_container_that_is_not_on_its_network_or_volume_is_recreated() {
    let world =
        World::new().service("web").network("front", &["web"]).volume("data", &["web"]).with_resources();
    let off_network =
        world.clone_with('b', "web", Life::Running).where_it(|container| container.networks.clear()).up();
    assert!(off_network.to_string().contains("(network p_front changed)"), "{off_network}");
    let without_volume =
        world.clone_with('b', "web", Life::Running).where_it(|container| container.volumes.clear()).up();
    assert!(without_volume.to_string().contains("(volume p_data changed)"), "{without_volume}");
}

#[test]
fn what_is_external_has_to_be_there() {
    let mut world = World::new().service("web").network("front", &["web"]);
    world.desired.networks.get_mut("front").unwrap().external = true;
    assert_eq!(world.up_fails().to_string(), "network p_front declared as external, but could not be found");
    let world = world.with_resources();
    assert_plan(
        &world.up(),
        &["1 container p-web-1: create (missing)", "2 container p-web-1: start (missing) after 1"],
    );
}

#[test]
fn a_fixed_name_is_for_one_container() {
    let world = World::new().service("web").change("web", |web| web.container_name = Some("shop".to_owned()));
    assert!(world.up().to_string().contains("container shop: create"));
    assert!(matches!(world.scale("web", 2).up_fails(), PlanError::NamedReplicas { .. }));
}

#[test]
fn services_in_a_ring_are_refused_by_name() {
    let world = World::new()
        .service("a")
        .service("b")
        .service("c")
        .needs("a", "b", Milestone::Started)
        .needs("b", "c", Milestone::Started)
        .needs("c", "b", Milestone::Started);
    assert_eq!(world.up_fails().to_string(), "dependency cycle detected: b -> c -> b");
}

#[test]
fn a_missing_image_is_pulled_once_for_all_that_use_it() {
    let mut world = World::new().service("a").service("b");
    world.seen.images.clear();
    assert_plan(
        &world.up(),
        &[
            "1 image box: pull (missing)",
            "2 container p-a-1: create (missing) after 1",
            "3 container p-b-1: create (missing) after 1",
            "4 container p-a-1: start (missing) after 2",
            "5 container p-b-1: start (missing) after 3",
        ],
    );
}

fn buildable(service: &mut DesiredService) {
    service.image = DesiredImage {
        name: "p-web".to_owned(),
        named: false,
        buildable: true,
        policy: ImagePolicy::Missing,
    };
}

#[test]
fn an_image_without_a_name_is_built_and_never_pulled() {
    let world = World::new().service("web").change("web", buildable);
    assert!(world.up().to_string().starts_with("1 image p-web: build (missing)\n"));
    let named = world.change("web", |web| web.image.named = true);
    assert!(named.up().to_string().starts_with("1 image p-web: pull or build (missing)\n"));
}

#[test]
fn base_images_of_other_services_are_built_first() {
    let world =
        World::new().service("base").service("web").change("web", buildable).change("base", buildable);
    let world = world
        .change("base", |base| base.image.name = "p-z-base".to_owned())
        .change("web", |web| {
            web.builds_from.insert("base".to_owned());
        })
        .with(|options| options.services = vec!["web".to_owned()]);
    assert!(
        world
            .up()
            .to_string()
            .starts_with("1 image p-z-base: build (missing)\n2 image p-web: build (missing) after 1\n"),
        "{}",
        world.up()
    );
}

#[test]
fn images_that_decide_about_a_container_come_first() {
    let world = World::new()
        .service("new")
        .service("web")
        .change("web", buildable)
        .has('a', "web", 1, Life::Running)
        .change("new", |new| new.image.policy = ImagePolicy::Always);
    let scope = ["new", "web"].map(str::to_owned).into();
    let plan = images::decisive(&world.desired, &world.seen, &scope, Building::Always).unwrap();
    assert_plan(&plan, &["1 image p-web: build (asked)"]);
}

#[test]
fn what_may_be_neither_pulled_nor_built_is_refused() {
    let mut world = World::new().service("web").change("web", |web| web.image.policy = ImagePolicy::Never);
    world.seen.images.clear();
    assert!(matches!(world.up_fails(), PlanError::NeverPulled { .. }));
    let world = world.change("web", buildable).with(|options| options.building = Building::Never);
    assert!(matches!(world.up_fails(), PlanError::NeverBuilt { .. }));
}

/// A job that ended, and web, which waits for it, after it.
fn after_a_job() -> World {
    World::new()
        .service("job")
        .service("web")
        .needs("web", "job", Milestone::Completed)
        .has('a', "job", 1, Life::Exited(0))
        .has('b', "web", 1, Life::Running)
}

#[test]
fn waiting_covers_every_service_and_ends_of_jobs() {
    let world = after_a_job().with(|options| options.wait = true);
    assert_plan(
        &world.up(),
        &["1 service job: wait until completed (asked)", "2 service web: wait until ready (asked)"],
    );
}

#[test]
fn down_takes_dependents_first_and_the_network_last() {
    let world = World::new()
        .service("db")
        .service("web")
        .needs("web", "db", Milestone::Started)
        .network("default", &["db", "web"])
        .volume("data", &["db"])
        .with_resources()
        .has('a', "db", 1, Life::Running)
        .has('b', "web", 1, Life::Running);
    assert_plan(
        &world.down(&DownOptions::default()),
        &[
            "1 container p-web-1: stop (asked)",
            "2 container p-web-1: remove (asked) after 1",
            "3 container p-db-1: stop (asked) after 1",
            "4 container p-db-1: remove (asked) after 3",
            "5 network p_default: remove (asked) after 2, 4",
        ],
    );
    let all = DownOptions { volumes: true, images: Some(Images::All), ..DownOptions::default() };
    assert!(
        world
            .down(&all)
            .to_string()
            .ends_with("6 volume p_data: remove (asked) after 2, 4\n7 image box: remove (asked) after 2, 4")
    );
}

#[test]
fn down_leaves_what_is_external_and_what_others_made() {
    let mut world = World::new().service("web").network("front", &["web"]).volume("data", &["web"]);
    world.desired.volumes.get_mut("data").unwrap().external = true;
    let mut world = world.with_resources();
    world.seen.networks.get_mut("p_front").unwrap().project = None;
    let options = DownOptions { volumes: true, ..DownOptions::default() };
    assert_plan(&world.down(&options), &["nothing to do"]);
}

#[test]
fn down_of_a_service_takes_the_volumes_and_images_that_no_other_one_uses() {
    let mut world = World::new()
        .service("db")
        .service("web")
        .volume("own", &["db"])
        .volume("shared", &["db", "web"])
        .with_resources()
        .has('a', "db", 1, Life::Exited(0))
        .has('b', "web", 1, Life::Running);
    world.seen.images.insert("db-image".to_owned(), image("db-image"));
    let world = world.change("db", |db| db.image.name = "db-image".to_owned());
    let options = DownOptions {
        services: vec!["db".to_owned()],
        volumes: true,
        images: Some(Images::All),
        ..DownOptions::default()
    };
    assert_plan(
        &world.down(&options),
        &[
            "1 container p-db-1: remove with volumes (asked)",
            "2 volume p_own: remove (asked) after 1",
            "3 image db-image: remove (asked) after 1",
        ],
    );
}

#[test]
fn restart_stops_dependents_first_and_starts_them_last() {
    let world = World::new()
        .service("db")
        .service("web")
        .restarts_with("web", "db")
        .has('a', "db", 1, Life::Running)
        .has('b', "web", 1, Life::Running);
    let verb = Verb::Restart { grace: None, no_dependents: false };
    assert_plan(
        &world.apply(&["db"], verb),
        &[
            "1 container p-web-1: stop (asked)",
            "2 container p-db-1: stop (asked) after 1",
            "3 container p-db-1: start (asked) after 2",
            "4 container p-web-1: start (asked) after 1, 3",
        ],
    );
    let alone = Verb::Restart { grace: None, no_dependents: true };
    let plan = world.apply(&["db"], alone);
    assert_eq!((plan.steps().len(), plan.warnings()), (2, &[][..]));
    let world = world.change("db", |db| db.config_hash = "h2".to_owned());
    let said = "db: the configuration has changed since, which `rcompose up` applies and this does not";
    assert_eq!(world.apply(&[], alone).warnings(), [said]);
}

#[test]
fn what_is_started_brings_along_what_it_depends_on() {
    let world = World::new()
        .service("db")
        .service("other")
        .service("web")
        .needs("web", "db", Milestone::Started)
        .has('a', "db", 1, Life::Exited(0))
        .has('b', "web", 1, Life::Exited(0));
    assert_plan(
        &world.apply(&["web"], Verb::Start { wait: false }),
        &["1 container p-db-1: start (asked)", "2 container p-web-1: start (asked) after 1"],
    );
    let fails =
        |services: &[String]| apply(&world.desired, &world.seen, services, Verb::Start { wait: false });
    let nothing = Err(PlanError::NothingToStart("other".to_owned()));
    assert_eq!(fails(&["other".to_owned()]), nothing);
    assert_eq!(fails(&[]).map(|plan| plan.steps().len()), Ok(2), "what there is is started");
    let mut nowhere = world.seen.clone();
    nowhere.containers.clear();
    assert!(apply(&world.desired, &nowhere, &[], Verb::Start { wait: false }).is_err());
}

#[test]
fn rm_removes_what_does_not_run() {
    let world = World::new().service("db").service("web").has('a', "db", 1, Life::Running).has(
        'b',
        "web",
        1,
        Life::Exited(1),
    );
    assert_plan(
        &world.apply(&[], Verb::Remove { stop: false, volumes: false }),
        &["1 container p-web-1: remove (asked)"],
    );
    assert_plan(
        &world.apply(&["db"], Verb::Remove { stop: true, volumes: true }),
        &["1 container p-db-1: stop (asked)", "2 container p-db-1: remove with volumes (asked) after 1"],
    );
}

#[test]
fn signals_and_freezing_reach_what_they_can() {
    let world = World::new()
        .service("web")
        .scale("web", 3)
        .has('a', "web", 1, Life::Running)
        .has('b', "web", 2, Life::Paused)
        .has('c', "web", 3, Life::Exited(0));
    assert_plan(&world.apply(&[], Verb::Pause), &["1 container p-web-1: pause (asked)"]);
    assert_plan(&world.apply(&[], Verb::Unpause), &["1 container p-web-2: unpause (asked)"]);
    let kill = Verb::Kill { signal: "HUP".parse().unwrap() };
    assert_eq!(world.apply(&[], kill).steps().len(), 2);
}

/// The stages of a plan that can be called off, each step by its number.
#[track_caller]
fn assert_stages(plan: &Plan, prepare: &[usize], commit: &[usize], retire: &[usize]) {
    let stages = Stages::of(plan);
    let numbers = |steps: &BTreeSet<usize>| steps.iter().map(|step| step + 1).collect::<Vec<_>>();
    let found = (numbers(&stages.prepare), numbers(&stages.commit), numbers(&stages.retire));
    assert_eq!(found, (prepare.to_vec(), commit.to_vec(), retire.to_vec()), "\n{plan}\n");
}

fn start_first() -> Option<Update> {
    Some(Update { start_first: true, parallelism: 0, ..Update::default() })
}

#[test]
fn a_staged_rollout_makes_all_ready_before_anything_changes() {
    let world = World::new()
        .service("api")
        .service("web")
        .needs("web", "api", Milestone::Healthy)
        .has('a', "api", 1, Life::Running)
        .has('b', "web", 1, Life::Running)
        .with(|options| options.staged = true);
    let world = ["api", "web"].into_iter().fold(world, |world, name| {
        world.change(name, |service| {
            service.config_hash = "h2".to_owned();
            service.update = start_first();
        })
    });
    let plan = world.up();
    assert_plan(
        &plan,
        &[
            "1 container p-api-1: create in place of aaaaaaaaaaaa (configuration changed)",
            "2 container p-web-1: create in place of bbbbbbbbbbbb (configuration changed)",
            "3 container p-api-1: start (configuration changed) after 1",
            "4 container p-api-1: wait until ready (asked) after 3",
            "5 container p-api-1: take over from aaaaaaaaaaaa (asked) after 4",
            "6 container p-api-1: stop (replaced) after 5",
            "7 container p-api-1: remove (replaced) after 6",
            "8 service api: wait until healthy (asked) after 4",
            "9 container p-web-1: start (configuration changed) after 2, 8",
            "10 container p-web-1: wait until ready (asked) after 9",
            "11 container p-web-1: take over from bbbbbbbbbbbb (asked) after 10",
            "12 container p-web-1: stop (replaced) after 11",
            "13 container p-web-1: remove (replaced) after 12",
        ],
    );
    assert_stages(&plan, &[1, 2, 3, 4, 8, 9, 10], &[5, 11], &[6, 7, 12, 13]);
}

/// A job that ended before the rollout and one that web waits for, each of an earlier release.
fn jobs(began: Timestamp) -> World {
    let change = |world: World, name: &str, hash: &str| {
        world.change(name, |it| (it.update, it.config_hash) = (start_first(), hash.to_owned()))
    };
    let world = after_a_job().with(|options| (options.staged, options.began) = (true, Some(began)));
    change(change(world, "job", "h2"), "web", "h2")
}

#[test]
fn a_job_that_changed_is_done_before_anything_changes() {
    let plan = jobs(Timestamp::from_second(1).unwrap()).up();
    assert_plan(
        &plan,
        &[
            "1 container p-job-1: create in place of aaaaaaaaaaaa (configuration changed)",
            "2 container p-web-1: create in place of bbbbbbbbbbbb (configuration changed)",
            "3 container p-job-1: start (configuration changed) after 1",
            "4 container p-job-1: wait until ready (asked) after 3",
            "5 container p-job-1: take over from aaaaaaaaaaaa (asked) after 4",
            "6 container p-job-1: remove (replaced) after 5",
            "7 service job: wait until completed (asked) after 4",
            "8 container p-web-1: start (configuration changed) after 2, 7",
            "9 container p-web-1: wait until ready (asked) after 8",
            "10 container p-web-1: take over from bbbbbbbbbbbb (asked) after 9",
            "11 container p-web-1: stop (replaced) after 10",
            "12 container p-web-1: remove (replaced) after 11",
        ],
    );
    assert_stages(&plan, &[1, 2, 3, 4, 7, 8, 9], &[5, 10], &[6, 11, 12]);
}

#[test]
fn a_job_that_was_done_in_a_stage_is_not_done_again_in_the_next_one() {
    let next = |began: i64| {
        let world = jobs(Timestamp::from_second(began).unwrap())
            .has('c', "job", 1, Life::Exited(0))
            .where_it(|seen| {
                (seen.held, seen.name, seen.config_hash) = (true, "next_p-job-1".to_owned(), "h2".to_owned());
            })
            .has('d', "web", 1, Life::Created)
            .where_it(|seen| {
                (seen.held, seen.name, seen.config_hash) = (true, "next_p-web-1".to_owned(), "h2".to_owned());
            });
        let plan = world.up();
        plan.steps().iter().map(|step| step.operation.to_string()).collect::<Vec<_>>()
    };
    let starts = |steps: &[String]| steps.iter().any(|step| step == "container p-job-1: start");
    // It ended at 0.
    let steps = next(0);
    assert!(!starts(&steps), "{steps:?}");
    assert!(steps.iter().any(|step| step == "container p-job-1: take over from aaaaaaaaaaaa"), "{steps:?}");
    let steps = next(1);
    assert!(starts(&steps), "{steps:?}");
}

#[test]
fn what_was_prepared_only_has_to_take_over() {
    let world = World::new()
        .service("web")
        .change("web", |web| web.update = start_first())
        .has('a', "web", 1, Life::Running)
        .where_it(|seen| seen.config_hash = "old".to_owned())
        .has('b', "web", 1, Life::Running)
        .where_it(|seen| (seen.held, seen.name) = (true, "next_p-web-1".to_owned()))
        .with(|options| options.staged = true);
    let plan = world.up();
    assert_plan(
        &plan,
        &[
            "1 container p-web-1: wait until ready (asked)",
            "2 container p-web-1: take over from aaaaaaaaaaaa (asked) after 1",
            "3 container p-web-1: stop (replaced) after 2",
            "4 container p-web-1: remove (replaced) after 3",
        ],
    );
    assert_stages(&plan, &[1], &[2], &[3, 4]);
}

#[test]
fn one_that_never_served_goes_before_another_one_is_prepared() {
    let world = World::new()
        .service("web")
        .change("web", |web| (web.update, web.config_hash) = (start_first(), "h3".to_owned()))
        .has('a', "web", 1, Life::Running)
        .has('b', "web", 1, Life::Running)
        .where_it(|seen| (seen.held, seen.name) = (true, "next_p-web-1".to_owned()))
        .with(|options| options.staged = true);
    let plan = world.up();
    assert_plan(
        &plan,
        &[
            "1 container next_p-web-1: stop (never served)",
            "2 container next_p-web-1: remove (never served) after 1",
            "3 container p-web-1: create in place of aaaaaaaaaaaa (configuration changed) after 2",
            "4 container p-web-1: start (configuration changed) after 1, 3",
            "5 container p-web-1: wait until ready (asked) after 4",
            "6 container p-web-1: take over from aaaaaaaaaaaa (asked) after 5",
            "7 container p-web-1: stop (replaced) after 6",
            "8 container p-web-1: remove (replaced) after 7",
        ],
    );
    assert_stages(&plan, &[1, 2, 3, 4, 5], &[6], &[7, 8]);
}

#[test]
fn a_service_that_cannot_stand_beside_itself_is_replaced_when_all_is_ready() {
    let world = World::new()
        .service("db")
        .change("db", |db| {
            db.update = Some(Update { start_first: false, parallelism: 0, ..Update::default() });
            db.config_hash = "h2".to_owned();
        })
        .service("job")
        .has('a', "db", 1, Life::Running)
        .with(|options| options.staged = true);
    let plan = world.up();
    assert_plan(
        &plan,
        &[
            "1 container p-db-1: create in place of aaaaaaaaaaaa (configuration changed)",
            "2 container p-job-1: create (missing)",
            "3 container p-db-1: stop (replaced) after 1",
            "4 container p-db-1: start (configuration changed) after 1, 3",
            "5 container p-db-1: wait until ready (asked) after 4",
            "6 container p-db-1: take over from aaaaaaaaaaaa (asked) after 5",
            "7 container p-db-1: remove (replaced) after 6",
            "8 container p-job-1: start (missing) after 2",
        ],
    );
    assert_stages(&plan, &[1, 2, 8], &[3, 4, 5, 6], &[7]);
}

#[test]
fn a_rollout_that_was_cut_off_goes_on_where_it_was() {
    let world = |start_first: bool, old: Life, new: Life| {
        World::new()
            .service("db")
            .change("db", |db| {
                db.update = Some(Update { start_first, parallelism: 0, ..Update::default() });
            })
            .has('a', "db", 1, old)
            .where_it(|seen| seen.config_hash = "old".to_owned())
            .has('b', "db", 1, new)
            .where_it(|seen| (seen.held, seen.name) = (true, "next_p-db-1".to_owned()))
            .with(|options| options.staged = true)
            .up()
    };
    // Made and not started; the old one must not stop before that, or has to.
    assert_plan(
        &world(true, Life::Running, Life::Created),
        &[
            "1 container p-db-1: start (left over)",
            "2 container p-db-1: wait until ready (asked) after 1",
            "3 container p-db-1: take over from aaaaaaaaaaaa (asked) after 2",
            "4 container p-db-1: stop (replaced) after 3",
            "5 container p-db-1: remove (replaced) after 4",
        ],
    );
    assert_plan(
        &world(false, Life::Running, Life::Created),
        &[
            "1 container p-db-1: stop (replaced)",
            "2 container p-db-1: start (left over) after 1",
            "3 container p-db-1: wait until ready (asked) after 2",
            "4 container p-db-1: take over from aaaaaaaaaaaa (asked) after 3",
            "5 container p-db-1: remove (replaced) after 4",
        ],
    );
    // The old one has stopped and the new one runs.
    assert_plan(
        &world(false, Life::Exited(0), Life::Running),
        &[
            "1 container p-db-1: wait until ready (asked)",
            "2 container p-db-1: take over from aaaaaaaaaaaa (asked) after 1",
            "3 container p-db-1: remove (replaced) after 2",
        ],
    );
}

/// A service with containers `a`, `b` and `c` that run, and another definition than they had.
fn updated(update: Update) -> World {
    ["a", "b", "c"].iter().zip(1..).fold(
        World::new().service("web").scale("web", 3).change("web", |web| {
            web.update = Some(update);
            web.config_hash = "h2".to_owned();
        }),
        |world, (letter, number)| world.has(letter.chars().next().unwrap(), "web", number, Life::Running),
    )
}

#[test]
fn an_update_that_bears_failures_asks_before_it_goes_on() {
    let update = Update { parallelism: 2, max_failure_ratio: 0.34, ..Update::default() };
    let plan = updated(Update {
        monitor: Some("2s".parse().unwrap()),
        delay: Some("5s".parse().unwrap()),
        ..update
    })
    .up();
    let text = plan.to_string();
    let tail: Vec<&str> = text.lines().skip(6).collect();
    assert_eq!(
        tail,
        [
            "7 container p-web-1: stop (replaced) after 4",
            "8 container p-web-1: start (configuration changed) after 4, 7",
            "9 service web: wait until ready (asked) after 8",
            "10 container p-web-1: see that it does not fail for 2s (asked) after 9",
            "11 container p-web-2: stop (replaced) after 5",
            "12 container p-web-2: start (configuration changed) after 5, 11",
            "13 service web: wait until ready (asked) after 12",
            "14 container p-web-2: see that it does not fail for 2s (asked) after 13",
            "15 service web: go on unless more than 1 of 3 failed (asked) after 10, 14",
            "16 service web: wait 3s (asked) after 15",
            "17 container p-web-3: stop (replaced) after 6, 16",
            "18 container p-web-3: start (configuration changed) after 6, 16, 17",
            "19 service web: wait until ready (asked) after 18",
            "20 container p-web-3: see that it does not fail for 2s (asked) after 19",
            "21 service web: go on unless more than 1 of 3 failed (asked) after 10, 14, 20",
            "22 container p-web-1: remove (replaced) after 7, 21",
            "23 container p-web-2: remove (replaced) after 11, 21",
            "24 container p-web-3: remove (replaced) after 17, 21",
        ],
        "\n{text}\n"
    );
    let borne = |ratio: f64| Update { max_failure_ratio: ratio, ..Update::default() }.borne(3);
    assert_eq!([0.0, 0.3, 0.5, 0.67, 1.0].map(borne), [0, 0, 1, 2, 3]);
    assert_eq!(Update { on_failure: OnFailure::Continue, ..Update::default() }.borne(3), 3);
}

#[test]
fn what_gave_way_comes_back_as_the_service_says() {
    let before = updated(Update::default());
    let mut now = updated(Update { start_first: true, on_failure: OnFailure::Rollback, ..Update::default() })
        .change("web", |web| web.rollback = Update { start_first: true, parallelism: 1, ..Update::default() })
        .has('d', "web", 1, Life::Running)
        .has('e', "web", 2, Life::Exited(3));
    for container in &mut now.seen.containers {
        let (name, life, held) = match container.id.short().as_bytes()[0] {
            b'a' => ("aaaaaaaaaaaa_p-web-1", Life::Exited(0), true),
            b'b' => ("bbbbbbbbbbbb_p-web-2", Life::Exited(0), false),
            _ => continue,
        };
        (container.name, container.life, container.held) = (name.to_owned(), life, held);
    }
    let services = ["web".to_owned()].into();
    assert_plan(
        &rollback(&now.desired, &before.seen, &now.seen, &services),
        &[
            "1 container aaaaaaaaaaaa_p-web-1: start (update failed)",
            "2 container aaaaaaaaaaaa_p-web-1: wait until ready (update failed) after 1",
            "3 container p-web-1: take over from dddddddddddd (update failed) after 2",
            "4 container p-web-1: stop (update failed) after 3",
            "5 container p-web-1: remove (update failed) after 4",
            "6 container p-web-2: remove (update failed) after 3",
            "7 container bbbbbbbbbbbb_p-web-2: start (update failed) after 3, 6",
            "8 container bbbbbbbbbbbb_p-web-2: rename to p-web-2 (update failed) after 7",
            "9 service web: wait until ready (update failed) after 7, 8",
        ],
    );
}
