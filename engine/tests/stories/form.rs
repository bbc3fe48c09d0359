//! The form in which images leave: compression, media types, annotations, as other programs read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::registry::Registry;
use crate::world::{Outcome, Running, World};

fn context(world: &World, dockerfile: &str) -> PathBuf {
    world.write("context/Dockerfile", dockerfile);
    world.write("context/file", "what was copied");
    world.path("context")
}

fn build(world: &World, flags: &[&str]) -> Outcome {
    let context = context(world, "FROM box\nCOPY file /file\nRUN echo ran > /ran\n");
    world.rengine(["build", "-q"].iter().chain(flags).copied().chain([context.to_str().unwrap()]))
}

fn run(program: &str, args: &[&str]) -> String {
    Running::start(Command::new(program).args(args)).ends().succeeds().stdout
}

/// A manifest as others see it.
fn manifest(address: &str) -> Value {
    let said = run("skopeo", &["inspect", "--raw", "--tls-verify=false", address]);
    serde_json::from_str(&said).unwrap()
}

fn layer_types(manifest: &Value) -> Vec<&str> {
    manifest["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].as_str().unwrap()).collect()
}

/// The name in the registry runs here and elsewhere, and buildah unpacks the same.
fn is_read_everywhere(name: &str) {
    let other = World::empty();
    other.rengine(["pull", "-q", name]).succeeds();
    let script = "cat /file /ran";
    other
        .rengine(["run", "--rm", "--network", "none", name, "sh", "-c", script])
        .succeeds()
        .prints("what was copiedran\n");
    let store = tempfile::tempdir_in("/dev/shm").unwrap();
    let (root, state) = (store.path().join("root"), store.path().join("run"));
    let store =
        ["--root", root.to_str().unwrap(), "--runroot", state.to_str().unwrap(), "--storage-driver", "vfs"];
    let buildah = |args: &[&str]| run("buildah", &[store.as_slice(), args].concat());
    let container = buildah(&["from", "--tls-verify=false", name]);
    let mounted = buildah(&["mount", container.trim()]);
    assert_eq!(fs::read_to_string(PathBuf::from(mounted.trim()).join("file")).unwrap(), "what was copied");
}

#[test]
fn layers_are_packed_as_it_is_asked() {
    let registry = Registry::start();
    let world = World::new();
    let name = format!("{}/app:1", registry.address());
    let address = format!("docker://{name}");
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    let output = |keys: &str| format!("type=registry,name={name},{keys}");
    build(&world, &["-o", &output("compression=zstd,compression-level=9")]).succeeds();
    assert_eq!(layer_types(&manifest(&address)), [zstd; 3]);
    is_read_everywhere(&name);
    // What has a blob keeps it, unless it is forced.
    build(&world, &["-o", &output("compression=gzip")]).succeeds();
    assert_eq!(layer_types(&manifest(&address)), [zstd; 3]);
    build(&world, &["-o", &output("compression=gzip,force-compression=true")]).succeeds();
    assert_eq!(layer_types(&manifest(&address)), ["application/vnd.oci.image.layer.v1.tar+gzip"; 3]);
    // A push packs all of them, and later ones stay with it.
    for args in [["push", "--compression", "zstd", "-q", &name].as_slice(), &["push", "-q", &name]] {
        world.rengine(args).succeeds();
        assert_eq!(layer_types(&manifest(&address)), [zstd; 3]);
    }
    build(&world, &["-o", &output("compression=uncompressed,force-compression=true")]).succeeds();
    let there = manifest(&address);
    assert_eq!(layer_types(&there), ["application/vnd.oci.image.layer.v1.tar"; 3]);
    assert_eq!(there["layers"][2]["digest"], world.inspect(&name, "{{index .RootFS.Layers 2}}"));
    build(&world, &["-o", &output("oci-mediatypes=false,compression=gzip,force-compression=true")])
        .succeeds();
    let there = manifest(&address);
    assert_eq!(there["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(there["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
    assert_eq!(layer_types(&there), ["application/vnd.docker.image.rootfs.diff.tar.gzip"; 3]);
    is_read_everywhere(&name);
    world.rengine(["push", "--compression", "lz4", &name]).exits(1).complains("\"lz4\" is not supported");
    build(&world, &["-o", &output("compression=gzip,compression-level=12")]).exits(1).complains("0 to 9");
    world.rengine(["system", "check", "--verify"]).succeeds();
}

#[test]
fn annotations_are_noted_where_they_belong() {
    let registry = Registry::start();
    let world = World::new();
    let name = format!("{}/app:1", registry.address());
    build(&world, &["-t", &name, "--annotation", "org.who=me", "--push"]).succeeds();
    assert_eq!(manifest(&format!("docker://{name}"))["annotations"], json!({ "org.who": "me" }));
    // Without one, the same image leaves without.
    build(&world, &["-t", &name, "--push"]).succeeds();
    assert_eq!(manifest(&format!("docker://{name}"))["annotations"], Value::Null);
    // Kept here first, pushed later.
    build(&world, &["-t", &name, "--annotation", "manifest:a=b=c"]).succeeds();
    world.rengine(["push", "-q", &name]).succeeds();
    assert_eq!(manifest(&format!("docker://{name}"))["annotations"], json!({ "a": "b=c" }));
    let archive = world.path("app.tar");
    let output = format!("type=oci,dest={},compression=zstd,annotation.k=v", archive.display());
    build(&world, &["-o", &output]).succeeds();
    let there = manifest(&format!("oci-archive:{}", archive.display()));
    assert_eq!(there["annotations"], json!({ "k": "v" }));
    build(&world, &["--annotation", "index:a=b"]).exits(1).complains("index annotations need an index");
    build(&world, &["--annotation", "index[linux/amd64]:a=b"]).exits(1).complains("all of its platforms");
    // An index has its own, and each manifest has what is said of all.
    let context = context(&world, "FROM scratch\nCOPY file /file\n");
    let flags = ["--platform", "linux/amd64,linux/s390x"];
    let notes = ["index:top=1", "each=2", "manifest[linux/s390x],manifest-descriptor[linux/s390x]:one=3"];
    let notes: Vec<&str> = notes.into_iter().flat_map(|note| ["--annotation", note]).collect();
    let args =
        [["build", "-q", "-t", &name, "--push"].as_slice(), &flags, &notes, &[context.to_str().unwrap()]]
            .concat();
    world.rengine(args).succeeds();
    let index = manifest(&format!("docker://{name}"));
    assert_eq!(index["annotations"], json!({ "top": "1" }));
    let digest = index["manifests"][1]["digest"].as_str().unwrap();
    let repository = name.trim_end_matches(":1");
    let of = |entry: usize| index["manifests"][entry]["digest"].as_str().unwrap();
    let noted = |digest: &str| manifest(&format!("docker://{repository}@{digest}"))["annotations"].clone();
    assert_eq!((noted(of(0)), noted(of(1))), (json!({ "each": "2" }), json!({ "each": "2", "one": "3" })));
    assert_eq!(index["manifests"][1]["annotations"], json!({ "one": "3" }));
    // One platform alone goes as one image.
    world.rengine(["push", "-q", "--platform", "linux/s390x", &name]).succeeds();
    assert_eq!(engine::id::Digest::of(index_bytes(&name).as_bytes()).as_str(), digest);
    world.rengine(["push", "--platform", "linux/riscv64", &name]).exits(1).complains("for linux/riscv64");
}

#[test]
fn how_an_image_was_made_is_attested_when_asked_for() {
    let registry = Registry::start();
    let world = World::new();
    let name = format!("{}/app:1", registry.address());
    let metadata = world.path("metadata.json");
    let flags = ["--provenance=builder-id=https://ci/1", "--metadata-file", metadata.to_str().unwrap()];
    build(&world, &[["-t", &name, "--push"].as_slice(), &flags].concat()).succeeds();
    let layout = world.path("layout");
    let copied = format!("oci:{}:app", layout.display());
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--all",
            "--insecure-policy",
            "--src-tls-verify=false",
            &format!("docker://{name}"),
            &copied,
        ],
    );
    let blob = |digest: &Value| -> Value {
        let path = layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let index = manifest(&format!("docker://{name}"));
    let [image, attestation] = index["manifests"].as_array().unwrap().as_slice() else { panic!("{index}") };
    assert_eq!(attestation["platform"], json!({ "os": "unknown", "architecture": "unknown" }));
    assert_eq!(attestation["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    // This registry keeps no list of what refers to an image, so there is one under a tag of its digest.
    let tag = image["digest"].as_str().unwrap().replace(':', "-");
    let listed = manifest(&format!("docker://{}/app:{tag}", registry.address()));
    assert_eq!(listed["manifests"][0]["digest"], attestation["digest"]);
    let attested = blob(&attestation["digest"]);
    assert_eq!(attested["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
    assert_eq!(attested["subject"]["digest"], image["digest"]);
    let statement = blob(&attested["layers"][0]["digest"]);
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(
        format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().unwrap()),
        image["digest"]
    );
    let predicate = &statement["predicate"];
    assert_eq!(predicate["runDetails"]["builder"]["id"], "https://ci/1");
    let base = predicate["buildDefinition"]["resolvedDependencies"][0]["uri"].as_str().unwrap();
    assert!(base.starts_with("pkg:docker/box@latest?platform=linux%2F"), "{base}");
    let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["buildx.build.provenance"], *predicate);
    assert_eq!(
        metadata["containerimage.digest"],
        json!(engine::id::Digest::of(index_bytes(&name).as_bytes()))
    );
    is_read_everywhere(&name);
    // It is kept, and leaves with the image again; it goes when another build does not ask for it.
    world.rengine(["image", "prune", "-f"]).succeeds();
    world.rengine(["push", "-q", &name]).succeeds();
    assert_eq!(manifest(&format!("docker://{name}")), index);
    let archive = world.path("app.tar");
    world.rengine(["save", "-o", archive.to_str().unwrap(), &name]).succeeds();
    let other = World::empty();
    other.rengine(["load", "-q", "-i", archive.to_str().unwrap()]).succeeds();
    assert_eq!(other.inspect(&name, "{{.Id}}"), world.inspect(&name, "{{.Id}}"));
    build(&world, &["-t", &name, "--push", "--provenance=false", "--sbom=false"]).succeeds();
    assert_eq!(manifest(&format!("docker://{name}"))["manifests"], Value::Null);
    build(&world, &["--provenance=mode=most"]).exits(1).complains("mode=most is not supported");
}

#[test]
fn an_index_leaves_as_it_came() {
    let (registry, elsewhere) = (Registry::start(), Registry::start());
    let world = World::new();
    let name = format!("{}/app:1", registry.address());
    let context = context(&world, "FROM scratch\nCOPY file /file\n");
    let context = context.to_str().unwrap();
    let build = ["build", "-q", "--provenance=true", "--sbom=true", "--push", "-t", &name];
    let platforms = ["--platform", "linux/amd64,linux/s390x"];
    world.rengine([build.as_slice(), &platforms, &[context]].concat()).succeeds();
    let there = index_bytes(&name);
    // Of one image alone, what everybody else has made cannot be said.
    let other = World::empty();
    let copy = |tag: &str| format!("{}/copy:{tag}", elsewhere.address());
    other.rengine(["pull", "-q", "--platform", "linux/s390x", &name]).succeeds();
    other.rengine(["tag", &name, &copy("one")]).succeeds();
    other.rengine(["push", &copy("one")]).succeeds().complains("only the image for linux/s390x is here");
    assert_eq!(manifest(&format!("docker://{}", copy("one")))["manifests"], Value::Null);
    // Of all, it can, and by an archive too.
    other.rengine(["pull", "-q", "--platform", "linux/amd64", &name]).succeeds();
    other.rengine(["tag", &name, &copy("all")]).succeeds();
    other.rengine(["image", "prune", "-f"]).succeeds();
    other.rengine(["push", "-q", &copy("all")]).succeeds();
    assert_eq!(index_bytes(&copy("all")), there);
    let archive = world.path("app.tar");
    other.rengine(["save", "-o", archive.to_str().unwrap(), &name, &copy("all")]).succeeds();
    let third = World::empty();
    third.rengine(["load", "-q", "-i", archive.to_str().unwrap()]).succeeds();
    third.rengine(["image", "prune", "-f"]).succeeds();
    third.rengine(["tag", &copy("all"), &copy("third")]).succeeds();
    third.rengine(["push", "-q", &copy("third")]).succeeds();
    assert_eq!(index_bytes(&copy("third")), there);
    // One that is asked for alone is what it is.
    third.rengine(["push", "-q", "--platform", "linux/amd64", &copy("third")]).succeeds();
    assert_eq!(manifest(&format!("docker://{}", copy("third")))["manifests"], Value::Null);
    // Nothing is left of it when its names are gone.
    for name in [&name, &copy("all"), &copy("third")] {
        third.rengine(["rmi", "-f", name]).succeeds();
    }
    let blobs = third.root().content().join("blobs/sha256");
    assert_eq!(fs::read_dir(blobs).unwrap().count(), 0);
}

#[test]
fn an_image_goes_under_its_digest_and_into_a_layout() {
    let registry = Registry::start();
    let world = World::new();
    let (name, metadata) = (format!("{}/app", registry.address()), world.path("metadata.json"));
    // As workflows do that build on a machine for each platform.
    let output = "type=image,push-by-digest=true,name-canonical=true,push=true";
    build(&world, &["-t", &name, "-o", output, "--metadata-file", metadata.to_str().unwrap()]).succeeds();
    let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    let canonical = format!("{name}@{}", metadata["containerimage.digest"].as_str().unwrap());
    World::empty().rengine(["pull", "-q", &name]).exits(1).complains("not in the registry");
    world.rengine(["buildx", "imagetools", "create", "-t", &name, &canonical]).succeeds();
    is_read_everywhere(&name);
    let layout = world.path("layout");
    for tag in ["1", "2"] {
        let output = format!("type=oci,tar=false,dest={},name=app:{tag}", layout.display());
        build(&world, &["-o", &output]).succeeds();
    }
    for tag in ["1", "2"] {
        let there = manifest(&format!("oci:{}:{tag}", layout.display()));
        assert_eq!(layer_types(&there), ["application/vnd.oci.image.layer.v1.tar+gzip"; 3]);
    }
    let output = format!("type=oci,tar=false,dest={},oci-artifact=false,name=app:3", layout.display());
    build(&world, &["-o", &output, "--provenance=version=v0.2", "--annotation", "index:a=b"]).succeeds();
    let index = manifest(&format!("oci:{}:3", layout.display()));
    assert_eq!(index["annotations"], json!({ "a": "b" }));
    let digest = index["manifests"][1]["digest"].as_str().unwrap().replace(':', "/");
    let attested = fs::read(layout.join("blobs").join(digest)).unwrap();
    let attested: Value = serde_json::from_slice(&attested).unwrap();
    assert_eq!(attested["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    assert_eq!(
        attested["layers"][0]["annotations"]["in-toto.io/predicate-type"],
        "https://slsa.dev/provenance/v0.2"
    );
}

/// The same blob, called by its sha512.
fn renamed(layout: &Path, descriptor: &mut Value, bytes: &[u8]) {
    use sha2::Digest as _;
    let hex = engine::id::hex(&sha2::Sha512::digest(bytes));
    fs::create_dir_all(layout.join("blobs/sha512")).unwrap();
    fs::write(layout.join("blobs/sha512").join(&hex), bytes).unwrap();
    descriptor["digest"] = json!(format!("sha512:{hex}"));
    descriptor["size"] = json!(bytes.len());
}

#[test]
fn blobs_may_be_called_by_their_sha512() {
    let registry = Registry::start();
    let world = World::new();
    let (name, layout) = (format!("{}/app:1", registry.address()), world.path("layout"));
    build(&world, &["-o", &format!("type=oci,tar=false,dest={},name={name}", layout.display())]).succeeds();
    let read = |descriptor: &Value| {
        fs::read(layout.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"))).unwrap()
    };
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let mut index = parsed(&fs::read(layout.join("index.json")).unwrap());
    let mut image = parsed(&read(&index["manifests"][0]));
    let bytes = read(&image["config"]);
    renamed(&layout, &mut image["config"], &bytes);
    for layer in image["layers"].as_array_mut().unwrap() {
        let bytes = read(layer);
        renamed(&layout, layer, &bytes);
    }
    renamed(&layout, &mut index["manifests"][0], image.to_string().as_bytes());
    fs::remove_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let archive = world.path("app.tar");
    run("tar", &["-C", layout.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."]);
    let runs = |world: &World| {
        world.rengine(["image", "prune", "-f"]).succeeds();
        let script = "cat /file /ran";
        let args = ["run", "--rm", "--network", "none", &name, "sh", "-c", script];
        world.rengine(args).succeeds().prints("what was copiedran\n");
        world.rengine(["system", "check", "--verify"]).succeeds();
    };
    let (loaded, pulled, again) = (World::empty(), World::empty(), World::empty());
    loaded.rengine(["load", "-q", "-i", archive.to_str().unwrap()]).succeeds();
    runs(&loaded);
    loaded.rengine(["push", "-q", &name]).succeeds();
    assert_eq!(manifest(&format!("docker://{name}")), image);
    pulled.rengine(["pull", "-q", &name]).succeeds();
    runs(&pulled);
    pulled.rengine(["save", "-o", archive.to_str().unwrap(), &name]).succeeds();
    again.rengine(["load", "-q", "-i", archive.to_str().unwrap()]).succeeds();
    runs(&again);
    // A damaged one is none.
    let digest = image["layers"][2]["digest"].as_str().unwrap().replace(':', "/");
    fs::write(layout.join("blobs").join(digest), "damaged").unwrap();
    run("tar", &["-C", layout.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "."]);
    World::empty().rengine(["load", "-i", archive.to_str().unwrap()]).exits(1).complains("sha512:");
}

#[test]
fn a_layer_that_only_its_vendor_hands_out_is_fetched_from_there_and_not_pushed() {
    let (registry, vendor) = (Registry::start(), Registry::start());
    let world = World::new();
    let name = format!("{}/app:1", registry.address());
    build(&world, &["-t", &name, "--push"]).succeeds();
    let plain = manifest(&format!("docker://{name}"));
    // The vendor has the last layer, and the registry has an image that says so.
    let theirs = format!("{}/app:1", vendor.address());
    world.rengine(["tag", &name, &theirs]).succeeds();
    world.rengine(["push", "-q", &theirs]).succeeds();
    let mut foreign = plain.clone();
    let digest = plain["layers"][2]["digest"].as_str().unwrap().to_owned();
    foreign["layers"][2]["mediaType"] = json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
    foreign["layers"][2]["urls"] = json!([format!("http://{}/v2/app/blobs/{digest}", vendor.address())]);
    let directory = world.path("foreign");
    fs::create_dir(&directory).unwrap();
    for blob in [&plain["config"], &plain["layers"][0], &plain["layers"][1]] {
        let digest = blob["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        fs::copy(world.root().content().join("blobs/sha256").join(digest), directory.join(digest)).unwrap();
    }
    fs::write(directory.join("manifest.json"), foreign.to_string()).unwrap();
    fs::write(directory.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    let empty = Registry::start_trusting();
    let source = format!("{}/app:1", empty.address());
    let (from, to) = (format!("dir:{}", directory.display()), format!("docker://{source}"));
    run("skopeo", &["copy", "-q", "--insecure-policy", "--dest-tls-verify=false", &from, &to]);
    let other = World::empty();
    other.rengine(["pull", "-q", &source]).succeeds();
    let script = "cat /file /ran";
    other.rengine(["run", "--rm", "--network", "none", &source, "sh", "-c", script]).succeeds();
    let last = Registry::start_trusting();
    let copy = format!("{}/app:1", last.address());
    other.rengine(["tag", &source, &copy]).succeeds();
    other.rengine(["push", &copy]).succeeds().shows("Skipped foreign layer");
    assert_eq!(manifest(&format!("docker://{copy}")), foreign);
    assert!(!last.requests().contains(&format!("digest={}", digest.replace(':', "%3A"))));
    // Without its vendor, there is no image.
    drop(vendor);
    World::empty().rengine(["pull", "-q", &source]).exits(1).complains("reach the registry");
}

fn index_bytes(name: &str) -> String {
    run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")])
}

/// A file that a package manager keeps, and one that was never installed.
const STATUS: &str = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\n\
Version: 2.36-9+deb12u9\nMaintainer: GNU Libc <debian-glibc@lists.debian.org>\n\n\
Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n";

#[test]
fn what_is_in_an_image_is_attested_when_asked_for() {
    let world = World::new();
    world.write("packages/var/lib/dpkg/status", STATUS);
    world.write("packages/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
    world.write("packages/app/node_modules/@a/b/package.json", "{\"name\":\"@a/b\",\"version\":\"1.0.0\"}");
    world.write("packages/var/lib/rpm/rpmdb.sqlite", "");
    let file = "FROM box\nARG WHAT\nLABEL what=$WHAT\nCOPY . /\n";
    let dockerfile = world.write("packages/Dockerfile", file);
    let context = dockerfile.parent().unwrap().to_str().unwrap();
    let (archive, files) = (world.path("app.tar"), world.path("files"));
    let build = |flags: &[&str]| {
        let mut args =
            vec!["build", "-q", "-t", "app", "--build-arg", "WHAT=it", "--secret", "id=key,env=PATH"];
        args.extend(flags);
        args.push(context);
        world.rengine(args)
    };
    let oci = format!("type=oci,dest={}", archive.display());
    build(&["--attest", "type=sbom", "--provenance=mode=max", "-o", &oci])
        .succeeds()
        .complains("the packages in /var/lib/rpm are not in the bill of materials");
    let layout = world.path("layout");
    tar::Archive::new(fs::File::open(&archive).unwrap()).unpack(&layout).unwrap();
    let blob = |digest: &Value| -> Value {
        let path = layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let top: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let index = blob(&top["manifests"][0]["digest"]);
    let attested = blob(&index["manifests"][1]["digest"]);
    let of = |kind: &str| {
        let layers = attested["layers"].as_array().unwrap();
        let layer = layers.iter().find(|it| it["annotations"]["in-toto.io/predicate-type"] == kind).unwrap();
        let statement = blob(&layer["digest"]);
        assert_eq!(
            (&statement["predicateType"], &statement["_type"]),
            (&json!(kind), &json!("https://in-toto.io/Statement/v1"))
        );
        statement["predicate"].clone()
    };
    let bill = of("https://spdx.dev/Document");
    assert_eq!(
        (&bill["spdxVersion"], &bill["packages"][0]["primaryPackagePurpose"]),
        (&json!("SPDX-2.3"), &json!("CONTAINER"))
    );
    let urls: Vec<&str> = bill["packages"].as_array().unwrap()[1..]
        .iter()
        .map(|package| package["externalRefs"][0]["referenceLocator"].as_str().unwrap())
        .collect();
    assert_eq!(
        urls,
        [
            "pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64&distro=debian-12&upstream=glibc",
            "pkg:npm/%40a/b@1.0.0"
        ]
    );
    let provenance = of("https://slsa.dev/provenance/v1");
    let asked = &provenance["buildDefinition"]["externalParameters"]["request"];
    assert_eq!((&asked["args"]["build-arg:WHAT"], &asked["secrets"][0]["id"]), (&json!("it"), &json!("key")));
    assert!(!provenance.to_string().contains(&std::env::var("PATH").unwrap()));
    let text = &provenance["runDetails"]["metadata"]["buildkit_metadata"]["source"]["infos"][0]["data"];
    assert_eq!(text, &json!(base64(file.as_bytes())));
    // Files that go elsewhere have it beside them.
    build(&["--sbom=true", "-o", files.to_str().unwrap()]).succeeds();
    let statement: Value = serde_json::from_slice(&fs::read(files.join("sbom.spdx.json")).unwrap()).unwrap();
    let subjects = statement["subject"].as_array().unwrap();
    assert!(subjects.iter().any(|subject| subject["name"] == "etc/os-release"), "{subjects:?}");
    build(&["--sbom=false", "-o", &format!("type=tar,dest={}", archive.display())]).succeeds();
    build(&["--sbom=generator=some/scanner"]).exits(1).complains("no scanner is run");
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
