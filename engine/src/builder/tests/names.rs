//! By which names Dockerfiles, contexts and platforms are found.

use super::*;

#[test]
fn a_dockerfile_may_be_spelled_otherwise() {
    for name in ["dockerfile", "Containerfile"] {
        let mut world = World::new().file(name, "FROM scratch\nLABEL a=b\n");
        for dockerfile in
            [DockerfileSource::Default, DockerfileSource::File(world.context.join("Dockerfile"))]
        {
            let request = BuildRequest { dockerfile, ..BuildRequest::of(&world.context) };
            assert_eq!(world.build_with(&request).unwrap().config.config.labels["a"], "b");
        }
        fs::write(world.context.join("Dockerfile"), "FROM scratch\nLABEL a=c\n").unwrap();
        let request = BuildRequest::of(&world.context);
        assert_eq!(world.build_with(&request).unwrap().config.config.labels["a"], "c");
    }
}

#[test]
fn a_context_stands_in_for_an_image_however_that_is_spelled() {
    let mut world = World::new().file("there/f", "from the context");
    for (known, asked) in [
        ("alpine", "alpine:latest"),
        ("docker.io/library/alpine:latest", "alpine"),
        ("a/b:1", "docker.io/a/b:1"),
    ] {
        let mut request = world.request(&format!("FROM scratch\nCOPY --from={asked} f /\n"));
        let there = NamedContext::Directory(world.context.join("there"));
        request.contexts.insert(known.to_owned(), there.clone());
        world.build_with(&request).unwrap();
        let request = world.request(&format!("FROM scratch\nCOPY --from={asked} f /\n"));
        let other = BuildRequest { contexts: [("alpine:3".to_owned(), there)].into(), ..request };
        assert!(world.build_with(&other).is_err());
    }
}

#[test]
fn a_context_stands_in_for_all_that_a_stage_does() {
    let mut world = World::new().file("there/f", "from the context");
    let dockerfile = "FROM scratch AS tools\nRUN fail 1\nFROM scratch\nCOPY --from=0 f /\n";
    let mut request = world.request(dockerfile);
    let image = world.build_with(&BuildRequest {
        tags: vec!["localhost/tools".parse().unwrap()],
        ..world.request("FROM scratch\nCOPY there/f /\n")
    });
    image.unwrap();
    request.contexts.insert("tools".to_owned(), NamedContext::Image("localhost/tools".parse().unwrap()));
    let image = world.build_with(&request).unwrap();
    assert!(world.files(&image).iter().any(|line| line.contains("from the context")));
}

#[test]
fn a_platform_that_is_empty_is_no_platform() {
    let mut world = World::new();
    let error = world.fails("FROM --platform=$TARGETPLATFROM scratch\n");
    assert!(error.contains("is empty (did you mean $TARGETPLATFORM?)"), "{error}");
}

#[test]
fn a_look_at_a_dockerfile_is_one_at_all_of_it() {
    let world = World::new();
    let mut request = world.request("FROM scratch AS one\nENV A=$NONE\nFROM scratch\nENV B=c\n");
    let warnings = |request: &BuildRequest| {
        let mut count = 0;
        let mut note = |event| count += u32::from(matches!(event, BuildEvent::Warning(_)));
        check(&world.root, &world.runner, request, &mut note).unwrap();
        count
    };
    assert_eq!(warnings(&request), 1);
    request.target = Some("1".to_owned());
    assert_eq!(warnings(&request), 0);
}

#[test]
fn an_image_is_for_the_platform_that_was_asked_for_whatever_made_it() {
    let mut world = World::new().file("f", "runs anywhere");
    world
        .build_with(&BuildRequest {
            tags: vec!["localhost/base".parse().unwrap()],
            platforms: vec![Platform::host()],
            ..world.request("FROM scratch\nCOPY f /\n")
        })
        .unwrap();
    let platforms = ["linux/arm/v7", "linux/s390x"].map(|text| text.parse().unwrap()).to_vec();
    let dockerfile = "FROM --platform=$BUILDPLATFORM localhost/base\nLABEL a=b\n";
    let request = BuildRequest { platforms: platforms.clone(), ..world.request(dockerfile) };
    let images = build(&world.root, &world.runner, &request, &mut |_| ()).unwrap();
    assert_eq!(images.iter().map(Image::platform).collect::<Vec<_>>(), platforms);
}

#[test]
fn what_is_elsewhere_is_added_and_not_copied() {
    let mut world = World::new();
    for address in ["https://example.com/f", "https://example.com/a.git#main"] {
        let error = world.fails(&format!("FROM scratch\nCOPY {address} /\n"));
        assert!(error.contains(&format!("COPY does not fetch {address}: ADD does")), "{error}");
    }
}

#[test]
fn a_date_may_come_from_the_dockerfile_and_an_empty_one_is_none() {
    let mut world = World::new().file("f", "");
    let created = |image: Image| image.config.created.unwrap();
    // A layer that was made before has the date of then.
    let dockerfile = |to: &str| format!("ARG SOURCE_DATE_EPOCH=86400\nFROM scratch\nCOPY f /{to}\n");
    assert_eq!(created(world.build(&dockerfile("a"))), "1970-01-02T00:00:00Z");
    for (given, wanted) in [("172800", "1970-01-03"), ("", "20")] {
        let mut request = world.request(&dockerfile(given));
        request.args.insert("SOURCE_DATE_EPOCH".to_owned(), given.to_owned());
        assert!(created(world.build_with(&request).unwrap()).starts_with(wanted), "{given}");
    }
}
