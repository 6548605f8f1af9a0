use super::*;
use crate::lease::Pool;

const OURS: &str = "02:00:00:00:00:01";

fn pools(v4: &str, v6: Option<&str>) -> Pools {
    let pool = |text: &str| Pool::new(text.parse().unwrap(), None, None, None).unwrap();
    Pools {
        v4: pool(v4),
        v6: v6.map(pool),
    }
}

fn held(key: &str, ip: &str, mac: &str) -> Held {
    let value = format!(
        r#"{{"PublicIP":"{ip}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
    );
    Held {
        key: key.parse().unwrap(),
        attributes: Some(Attributes::decode(value.as_bytes()).unwrap()),
        revision: 7,
    }
}

fn step(held: &[Held], pools: &Pools, previous: Option<&str>) -> Step {
    let macs = [OURS.parse().unwrap()];
    let claim = Claim {
        public_ip: "192.0.2.1".parse().unwrap(),
        public_ipv6: None,
        macs: &macs,
        previous: previous.map(|key| key.parse().unwrap()),
        is_inherited: true,
        pools,
        avoid: &[],
        barred: &[],
    };
    next(held, &claim, &mut |count| count - 1)
}

fn create(key: &str) -> Step {
    Step::Create(key.parse().unwrap())
}

#[test]
fn a_node_keeps_what_is_its_own_even_with_another_lease_in_its_subnet_file() {
    let pools = pools("10.5.0.0/16", None);
    let all = [
        held("10.5.2.0-24", "192.0.2.2", "02:00:00:00:00:02"),
        held("10.5.1.0-24", "192.0.2.1", OURS),
    ];
    let keep = Step::Keep {
        key: "10.5.1.0-24".parse().unwrap(),
        revision: 7,
    };
    assert_eq!(step(&all, &pools, Some("10.5.9.0-24")), keep);
}

#[test]
fn what_a_node_had_before_it_gets_again_unless_it_is_taken() {
    let pools = pools("10.5.0.0/21", None);
    let other = held("10.5.3.0-24", "192.0.2.2", "02:00:00:00:00:02");
    assert_eq!(
        step(&[], &pools, Some("10.5.3.0-24")),
        create("10.5.3.0-24")
    );
    let taken = std::slice::from_ref(&other);
    assert_eq!(
        step(taken, &pools, Some("10.5.3.0-24")),
        create("10.5.7.0-24")
    );
    assert_eq!(
        step(taken, &pools, Some("10.9.3.0-24")),
        create("10.5.7.0-24")
    );
}

#[test]
fn a_lease_of_another_network_or_family_is_given_up() {
    let all = [held("10.5.1.0-24", "192.0.2.1", OURS)];
    let discard = Step::Discard {
        key: "10.5.1.0-24".parse().unwrap(),
        revision: 7,
    };
    assert_eq!(step(&all, &pools("10.6.0.0/16", None), None), discard);
    let dual = pools("10.5.0.0/16", Some("fc00::/48"));
    assert_eq!(step(&all, &dual, None), discard);
}

#[test]
fn subnets_that_overlap_any_lease_even_an_unreadable_one_are_not_taken() {
    let mut junk = held("10.5.2.0-23&fc00:0:0:ffff::-64", "192.0.2.9", OURS);
    junk.attributes = None;
    let v4 = pools("10.5.0.0/22", None);
    assert_eq!(
        step(std::slice::from_ref(&junk), &v4, None),
        create("10.5.1.0-24")
    );
    let dual = pools("10.5.0.0/22", Some("fc00:0:0:fffc::/62"));
    assert_eq!(
        step(&[junk], &dual, None),
        create("10.5.1.0-24&fc00:0:0:fffd::-64")
    );
}

#[test]
fn of_several_leases_with_its_address_a_node_keeps_one_of_the_network() {
    let pools = pools("10.5.0.0/16", None);
    let all = [
        held("10.4.1.0-24", "192.0.2.1", OURS),
        held("10.5.1.0-24", "192.0.2.1", OURS),
        held("10.5.2.0-24", "192.0.2.1", OURS),
    ];
    let keep = |key: &str| Step::Keep {
        key: key.parse().unwrap(),
        revision: 7,
    };
    assert_eq!(step(&all, &pools, None), keep("10.5.1.0-24"));
    assert_eq!(step(&all, &pools, Some("10.5.2.0-24")), keep("10.5.2.0-24"));
    assert_eq!(step(&all, &pools, Some("10.4.1.0-24")), keep("10.5.1.0-24"));
}

#[test]
fn what_may_be_in_use_is_the_last_to_be_taken() {
    let pools = pools("10.5.0.0/22", None);
    let macs = [OURS.parse().unwrap()];
    let avoid: Vec<IpNetwork> = ["10.5.1.0/24", "10.5.3.0/24"]
        .map(|text| text.parse().unwrap())
        .to_vec();
    let claim = Claim {
        public_ip: "192.0.2.1".parse().unwrap(),
        public_ipv6: None,
        macs: &macs,
        previous: None,
        is_inherited: true,
        pools: &pools,
        avoid: &avoid,
        barred: &[],
    };
    let taken = held("10.5.2.0-24", "192.0.2.2", "02:00:00:00:00:02");
    assert_eq!(next(&[], &claim, &mut |_| 0), create("10.5.2.0-24"));
    assert_eq!(
        next(std::slice::from_ref(&taken), &claim, &mut |_| 0),
        create("10.5.1.0-24")
    );
    let barred = ["10.5.1.0/24".parse().unwrap()];
    let claim = Claim {
        barred: &barred,
        ..claim
    };
    assert_eq!(next(&[taken], &claim, &mut |_| 0), create("10.5.3.0-24"));
}

#[test]
fn what_a_node_held_until_now_it_wants_back_and_nobody_elses() {
    let pools = pools("10.5.0.0/16", None);
    let macs = [OURS.parse().unwrap()];
    let claim = Claim {
        public_ip: "192.0.2.1".parse().unwrap(),
        public_ipv6: None,
        macs: &macs,
        previous: "10.5.2.0-24".parse().ok(),
        is_inherited: false,
        pools: &pools,
        avoid: &[],
        barred: &[],
    };
    let old = held("10.5.1.0-24", "192.0.2.1", OURS);
    let step = next(std::slice::from_ref(&old), &claim, &mut |_| 0);
    assert_eq!(step, create("10.5.2.0-24"), "a restore has an older lease");
    let heir = held("10.5.2.0-24", "192.0.2.2", "02:00:00:00:00:02");
    let keep = Step::Keep {
        key: old.key,
        revision: 7,
    };
    assert_eq!(next(&[old, heir], &claim, &mut |_| 0), keep);
    let twin = held("10.5.2.0-24", "192.0.2.1", "02:00:00:00:00:09");
    let step = next(&[twin], &claim, &mut |_| 0);
    assert!(
        matches!(step, Step::Wait(Obstacle::Duplicate { .. })),
        "{step:?}"
    );
}

#[test]
fn a_node_whose_address_changed_while_it_was_down_keeps_its_subnet() {
    let pools = pools("10.5.0.0/16", None);
    let keep = Step::Keep {
        key: "10.5.1.0-24".parse().unwrap(),
        revision: 7,
    };
    let before = [held("10.5.1.0-24", "192.0.2.77", OURS)];
    assert_eq!(step(&before, &pools, Some("10.5.1.0-24")), keep);
    // With another MAC, or as nothing that it knows of, it is another node's.
    let theirs = [held("10.5.1.0-24", "192.0.2.77", "02:00:00:00:00:09")];
    let new = create("10.5.255.0-24");
    assert_eq!(step(&theirs, &pools, Some("10.5.1.0-24")), new);
    assert_eq!(step(&before, &pools, None), new);
}

#[test]
fn obstacles_are_named() {
    let full = pools("10.5.0.0/24", None);
    let all = [held("10.5.0.0-16", "192.0.2.2", "02:00:00:00:00:02")];
    let Step::Wait(obstacle) = step(&all, &full, None) else {
        panic!("not full");
    };
    assert_eq!(
        obstacle.to_string(),
        "out of subnets: all 3 of 10.5.0.0/24 are leased or overlap a lease; free one, or make Network larger"
    );
    let pools = pools("10.5.0.0/16", None);
    let twin = [held("10.5.1.0-24", "192.0.2.1", "02:00:00:00:00:09")];
    let Step::Wait(obstacle) = step(&twin, &pools, None) else {
        panic!("took another node's lease");
    };
    assert_eq!(
        obstacle.to_string(),
        "lease 10.5.1.0-24 has this node's PublicIP 192.0.2.1 but VtepMAC 02:00:00:00:00:09, which is not this \
         node's 02:00:00:00:00:01: give each node an address of its own (public-ip, iface), or release that lease \
         if its node is gone"
    );
    // A node that succeeds flanneld knows its lease by the subnet file.
    let keep = Step::Keep {
        key: "10.5.1.0-24".parse().unwrap(),
        revision: 7,
    };
    assert_eq!(step(&twin, &pools, Some("10.5.1.0-24")), keep);
}

#[test]
fn a_reservation_without_a_mac_is_the_nodes() {
    let mut reserved = held("10.5.4.0-24", "192.0.2.1", OURS);
    reserved.attributes = Attributes::decode(br#"{"PublicIP":"192.0.2.1"}"#).ok();
    let keep = Step::Keep {
        key: "10.5.4.0-24".parse().unwrap(),
        revision: 7,
    };
    assert_eq!(step(&[reserved], &pools("10.5.0.0/16", None), None), keep);
}
