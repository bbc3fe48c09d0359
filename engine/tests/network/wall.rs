//! The firewall: flushed by others, and gone at the end.

use crate::host::*;
use engine::container::spec::Protocol;

#[test]
fn what_is_flushed_comes_back_with_the_next_container() {
    on_a_host(|host| {
        let back = host.network("back");
        let web = host.guest("web", &[on("back")]);
        web.place.serve_tcp("0.0.0.0:80", "web");
        host.publish(&web, &[port(None, 8080, 80, Protocol::Tcp)]).unwrap();
        let before = run("nft", "list ruleset");
        assert!(before.contains(&format!("table inet {}", host.root.tag())), "{before}");
        assert!(before.contains(&back.bridge), "{before}");
        assert!(before.contains(&format!("comment \"{} web\"", web.id.short())), "{before}");
        run("nft", "flush ruleset");
        assert!(is_silent("127.0.0.1:8080"));
        host.guest("two", &[on("back")]);
        assert!(call("127.0.0.1:8080").is_some());
        assert_eq!(run("nft", "list ruleset"), before);
    });
}

#[test]
fn nothing_is_left_when_all_is_removed() {
    on_a_host(|host| {
        let back = host.network("back");
        let closed = host.internal("closed");
        let guest = host.guest("web", &[on("back"), on("closed")]);
        host.guest("other", &[]);
        host.publish(&guest, &[port(None, 8080, 80, Protocol::Tcp)]).unwrap();
        let text = host.networks.remove(&back.id).unwrap_err().to_string();
        assert_eq!(text, "the network back is in use by container web");
        assert_eq!(host.sweep(), 2);
        host.networks.remove(&back.id).unwrap();
        assert_eq!(host.networks.prune(&|_| false).unwrap().len(), 1);
        assert!(host.networks.find(closed.id.as_str()).is_err());
        let elements = run("nft", "list ruleset");
        for left in [back.bridge.as_str(), closed.bridge.as_str(), "8080"] {
            assert!(!elements.contains(left), "{elements}");
        }
        host.networks.teardown().unwrap();
        host.networks.teardown().unwrap();
        assert_eq!(run("nft", "list ruleset"), "");
        let links = run("ip", "-br link");
        assert!(!links.contains(host.root.short_tag()), "{links}");
        // The next container has it all again.
        let again = host.guest("again", &[]);
        again.place.serve_tcp("0.0.0.0:80", "again");
        assert!(call(&again.at(80)).is_some());
    });
}

#[test]
fn a_rule_of_the_hosts_own_can_close_a_published_port() {
    on_a_host(|host| {
        let neighbour = host.neighbour();
        host.network("back");
        let web = host.guest("web", &[on("back")]);
        web.place.serve_tcp("0.0.0.0:80", "web");
        let both = [port(None, 8080, 80, Protocol::Tcp), port(None, 8081, 80, Protocol::Tcp)];
        host.publish(&web, &both).unwrap();
        // Where it was sent to is what the host's administrator knows, not where it leads.
        run("nft", "add table inet mine");
        run("nft", "add chain inet mine guard { type filter hook forward priority 10 ; }");
        run("nft", "add rule inet mine guard iifname wire0 meta l4proto tcp ct original proto-dst 8080 drop");
        assert!(neighbour.misses("198.51.100.1:8080"));
        assert!(neighbour.call("198.51.100.1:8081").is_some());
        assert!(call("127.0.0.1:8080").is_some());
    });
}

#[test]
fn the_table_goes_when_no_network_is_left() {
    on_a_host(|host| {
        let only = host.network("only");
        host.networks.remove(&only.id).unwrap();
        host.networks.teardown().unwrap();
        assert_eq!(run("nft", "list ruleset"), "");
    });
}
