use pretty_assertions::assert_eq;
use regex::Regex;

use super::*;

fn interfaces() -> Vec<Interface> {
    let interface = |name: &str, addresses: &[&str]| Interface {
        name: name.parse().unwrap(),
        mtu: Mtu::try_from(1500).ok(),
        addresses: addresses.iter().map(|a| prefixed(a)).collect(),
        ours: false,
    };
    vec![
        interface("lo", &["127.0.0.1", "::1"]),
        interface("eth0", &["10.0.2.15"]),
        interface("eth1", &["169.254.7.7", "172.30.0.5", "172.30.0.6"]),
        interface("eth2", &["fd00::2"]),
        interface("eth3", &["172.31.0.7", "fe80::7", "fd00:1::7"]),
    ]
}

fn prefixed(address: &str) -> IpNetwork {
    let ip: IpAddr = address.parse().unwrap();
    IpNetwork::new(ip, if ip.is_ipv4() { 24 } else { 64 }).unwrap()
}

fn of_families(choice: &UplinkChoice, node: &[&str], v6: bool) -> Result<Uplink, String> {
    after(choice, node, v6, &interfaces(), None)
}

/// What is chosen after `held`; the default route leads to eth0.
fn after(
    choice: &UplinkChoice,
    node: &[&str],
    v6: bool,
    interfaces: &[Interface],
    held: Option<&Uplink>,
) -> Result<Uplink, String> {
    let node: Vec<IpAddr> = node.iter().map(|a| a.parse().unwrap()).collect();
    let host = Host {
        interfaces,
        node: &node,
        families: Families { v4: true, v6 },
        held,
        announced: &[],
        source_to: &|_| "172.30.0.6".parse().ok(),
        default_device: &|| "eth0".parse().ok(),
    };
    choose(choice, &host).map_err(|error| error.to_string())
}

fn chosen(choice: &UplinkChoice, node: &[&str]) -> Result<(String, String, String), String> {
    let found = of_families(choice, node, false)?;
    let v4 = found.v4.unwrap();
    let (local, public) = (v4.local.to_string(), v4.public_ip.to_string());
    Ok((found.device.to_string(), local, public))
}

fn three(device: &str, local: &str, public: &str) -> Result<(String, String, String), String> {
    Ok((device.to_owned(), local.to_owned(), public.to_owned()))
}

#[test]
fn the_nodes_address_wins_over_the_default_route() {
    let choice = UplinkChoice::default();
    assert_eq!(
        chosen(&choice, &["172.30.0.6"]),
        three("eth1", "172.30.0.6", "172.30.0.6")
    );
    assert_eq!(
        chosen(&choice, &["192.168.9.9"]),
        three("eth0", "10.0.2.15", "10.0.2.15")
    );
}

#[test]
fn flags_win_in_flannels_order() {
    let mut choice = UplinkChoice {
        can_reach: Some("172.30.0.99".parse().unwrap()),
        ..UplinkChoice::default()
    };
    let reaching = three("eth1", "172.30.0.6", "172.30.0.6");
    assert_eq!(chosen(&choice, &["172.31.0.7"]), reaching);
    choice.expressions = vec![Regex::new(r"^172\.31").unwrap()];
    assert_eq!(
        chosen(&choice, &[]),
        three("eth3", "172.31.0.7", "172.31.0.7")
    );
    choice.interfaces = vec!["eth9".to_owned(), "10.0.2.15".to_owned()];
    assert_eq!(
        chosen(&choice, &[]),
        three("eth0", "10.0.2.15", "10.0.2.15")
    );
    // What matches nothing leaves the choice to what comes after it.
    choice.interfaces = vec!["eth9".to_owned()];
    choice.expressions = vec![Regex::new("^wlan").unwrap()];
    assert_eq!(chosen(&choice, &[]), reaching);
}

#[test]
fn an_address_that_was_asked_for_is_the_one_that_is_used() {
    let wanted = three("eth1", "172.30.0.6", "172.30.0.6");
    let mut choice = UplinkChoice {
        interfaces: vec!["172.30.0.6".to_owned()],
        ..UplinkChoice::default()
    };
    assert_eq!(chosen(&choice, &["172.30.0.5"]), wanted);
    choice.interfaces.clear();
    choice.expressions = vec![Regex::new(r"\.6$").unwrap()];
    assert_eq!(chosen(&choice, &["172.30.0.5"]), wanted);
    // A name leaves it to the Node's addresses, then to the first.
    choice.expressions = vec![Regex::new("^eth1$").unwrap()];
    assert_eq!(chosen(&choice, &["172.30.0.6"]), wanted);
    assert_eq!(
        chosen(&choice, &[]),
        three("eth1", "172.30.0.5", "172.30.0.5")
    );
}

#[test]
fn an_expression_is_looked_for_among_addresses_first() {
    let choice = UplinkChoice {
        expressions: vec![Regex::new(r"^eth0$|^172\.31\.").unwrap()],
        ..UplinkChoice::default()
    };
    assert_eq!(
        chosen(&choice, &[]),
        three("eth3", "172.31.0.7", "172.31.0.7")
    );
}

#[test]
fn the_next_one_is_taken_where_the_first_cannot_be_used() {
    let choice = UplinkChoice {
        interfaces: ["eth2", "eth1"].map(str::to_owned).to_vec(),
        ..UplinkChoice::default()
    };
    assert_eq!(
        chosen(&choice, &[]),
        three("eth1", "172.30.0.5", "172.30.0.5")
    );
    let found = of_families(&choice, &[], true).unwrap_err();
    assert_eq!(
        found,
        "interface eth2 has no global IPv4 address; give it one or name another with --iface"
    );
}

#[test]
fn what_was_chosen_stays_as_long_as_it_can() {
    let held = |device: &str| {
        let choice = UplinkChoice {
            interfaces: vec![device.to_owned()],
            ..UplinkChoice::default()
        };
        of_families(&choice, &[], false).unwrap()
    };
    let next = |choice: &UplinkChoice, node: &[&str], held: &Uplink, gone: &str| {
        let mut interfaces = interfaces();
        for one in &mut interfaces {
            one.addresses
                .retain(|address| address.ip().to_string() != gone);
        }
        let found = after(choice, node, false, &interfaces, Some(held)).unwrap();
        (
            found.device.to_string(),
            found.v4.unwrap().local.to_string(),
        )
    };
    let is = |device: &str, local: &str| (device.to_owned(), local.to_owned());
    let by_route = UplinkChoice::default();
    // Though the default route is eth0's by now.
    let eth3 = held("eth3");
    assert_eq!(next(&by_route, &[], &eth3, ""), is("eth3", "172.31.0.7"));
    assert_eq!(
        next(&by_route, &[], &eth3, "172.31.0.7"),
        is("eth0", "10.0.2.15")
    );
    assert_eq!(
        next(&by_route, &["172.30.0.5"], &eth3, ""),
        is("eth1", "172.30.0.5")
    );
    // An address that has come since does not replace the one in use.
    let second = held("172.30.0.6");
    assert_eq!(next(&by_route, &[], &second, ""), is("eth1", "172.30.0.6"));
    let several = UplinkChoice {
        interfaces: ["eth0", "eth1"].map(str::to_owned).to_vec(),
        ..UplinkChoice::default()
    };
    assert_eq!(
        next(&several, &[], &held("eth1"), ""),
        is("eth1", "172.30.0.5")
    );
}

#[test]
fn a_public_address_need_not_be_local() {
    let mut choice = UplinkChoice {
        public_ip: Some("203.0.113.9".parse().unwrap()),
        ..UplinkChoice::default()
    };
    assert_eq!(
        chosen(&choice, &[]),
        three("eth0", "10.0.2.15", "203.0.113.9")
    );
    choice.public_ip = Some("172.30.0.6".parse().unwrap());
    assert_eq!(
        chosen(&choice, &[]),
        three("eth1", "172.30.0.6", "172.30.0.6")
    );
}

#[test]
fn both_families_are_taken_from_one_interface() {
    let found = of_families(&UplinkChoice::default(), &["172.31.0.7"], true).unwrap();
    assert_eq!(found.device.as_str(), "eth3");
    assert_eq!(found.v4.unwrap().local.to_string(), "172.31.0.7");
    assert_eq!(found.v6.unwrap().public_ip.to_string(), "fd00:1::7");
    let adjacent: Vec<String> = found.adjacent.iter().map(ToString::to_string).collect();
    assert_eq!(adjacent, ["172.31.0.0/24", "fd00:1::/64"]);
    assert_eq!(
        of_families(&UplinkChoice::default(), &["172.30.0.6"], true).unwrap_err(),
        "interface eth1 has no global IPv6 address; give it one or name another with --iface"
    );
}

#[test]
fn what_cannot_be_used_is_named() {
    let mut choice = UplinkChoice {
        interfaces: vec!["eth9".to_owned()],
        ..UplinkChoice::default()
    };
    assert_eq!(
        chosen(&choice, &[]).unwrap_err(),
        "no interface matches eth9; name one with --iface"
    );
    choice.interfaces = vec!["eth2".to_owned()];
    assert_eq!(
        chosen(&choice, &[]).unwrap_err(),
        "interface eth2 has no global IPv4 address; give it one or name another with --iface"
    );
}

#[test]
fn the_kernel_tells_the_source_to_loopback() {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    assert_eq!(kernel_source_to(loopback), Some(loopback));
}
