use pretty_assertions::assert_eq;

use super::*;

const NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;

fn net_error(text: &str) -> String {
    NetConf::parse("net-conf.json", text)
        .unwrap_err()
        .to_string()
}

fn checked(settings: Settings) -> Result<Config, ConfigError> {
    let settings = Settings {
        node_name: Some(settings.node_name.unwrap_or_else(|| "n1".to_owned())),
        ..settings
    };
    let net = NetConf::parse("net-conf.json", NET_CONF).unwrap();
    Config::check(settings, LeaseSource::Kube(net))
}

fn vxlan(conf: &NetConf) -> VxlanConf {
    match &conf.backend {
        BackendConf::Vxlan(vxlan) => *vxlan,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_usual_net_conf_is_read_with_flannels_defaults() {
    let read = NetConf::parse("net-conf.json", NET_CONF).unwrap();
    assert_eq!(read.v4, "10.244.0.0/16".parse().ok());
    assert_eq!(read.v6, None);
    let defaults = VxlanConf {
        vni: 1.try_into().unwrap(),
        port: 8472,
        mtu: None,
        direct_routing: false,
        learning: false,
        gbp: false,
    };
    assert_eq!(vxlan(&read), defaults);
    let pools = read.pools().unwrap();
    assert_eq!((pools.v4.size(), pools.v6), (255, None));
}

#[test]
fn keys_are_case_insensitive_and_unknown_ones_are_told() {
    let text = r#"{"network": "10.1.0.0/16", "EnableNFTables": true, "Netmask": 3,
                   "backend": {"type": "VXLAN", "vni": 7, "port": 4789, "mtu": 1400, "X": 1,
                               "directrouting": true}}"#;
    let read = NetConf::parse("net-conf.json", text).unwrap();
    let found = vxlan(&read);
    assert_eq!((found.vni.get(), found.port), (7, 4789));
    assert_eq!(found.mtu.unwrap().to_string(), "1400");
    assert!(found.direct_routing);
    assert_eq!(read.ignored, ["Netmask", "Backend.X"]);
}

#[test]
fn both_families_and_every_backend_are_read() {
    let with = |backend: &str| {
        let text = format!(
            r#"{{"EnableIPv6": true, "Network": "10.1.0.0/16", "IPv6Network": "fd00::/48",
                 "SubnetLen": 26, "SubnetMin": "10.1.4.0", "IPv6SubnetMax": "fd00:0:0:9::",
                 "Backend": {backend}}}"#
        );
        NetConf::parse("net-conf.json", &text)
    };
    let read = with(r#"{"Type": "host-gw"}"#).unwrap();
    assert_eq!(read.backend, BackendConf::HostGw);
    let pools = read.pools().unwrap();
    assert_eq!((pools.v4.size(), pools.v6.unwrap().size()), (1008, 9));
    assert_eq!(
        with(r#"{"Type": "alloc"}"#).unwrap().backend,
        BackendConf::Alloc
    );
    let wireguard = with(r#"{"Type": "wireguard", "ListenPort": 7, "PSK": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="}"#).unwrap();
    let expected = WireguardConf {
        port: 7,
        port_v6: 51821,
        mtu: None,
        preshared_key: Some(netstate::wireguard::Key::new([1; 32])),
        keepalive: 0,
    };
    assert_eq!(wireguard.backend, BackendConf::Wireguard(expected));
    assert_eq!(
        with(r#"{"Type": "ipip"}"#).unwrap_err().to_string(),
        "net-conf.json: Backend.Type: ipip: ipip carries IPv4 only; use another backend, or leave EnableIPv6 out"
    );
}

#[test]
fn pools_of_subnets_are_checked_when_they_are_needed() {
    let error = |text: &str| {
        let conf = NetConf::parse("net-conf.json", text).unwrap();
        conf.pools().unwrap_err().to_string()
    };
    let with = |keys: &str| {
        let v6 = r#""EnableIPv6": true, "IPv6Network": "fd00::/48""#;
        error(&format!(
            r#"{{"Network": "10.1.0.0/16", {v6}, {keys}, "Backend": {{"Type": "vxlan"}}}}"#
        ))
    };
    for (keys, said) in [
        (r#""SubnetLen": 17"#, "SubnetLen: 17: write 18 to 30"),
        (r#""SubnetLen": 31"#, "SubnetLen: 31: write 18 to 30"),
        (
            r#""SubnetMin": "10.2.0.0""#,
            "SubnetMin: 10.2.0.0: it is not within Network 10.1.0.0/16",
        ),
        (
            r#""SubnetMax": "10.1.9.7""#,
            "SubnetMax: 10.1.9.7: write a subnet's first address, 10.1.9.0",
        ),
        (
            r#""SubnetMin": "10.1.9.0", "SubnetMax": "10.1.8.0""#,
            "SubnetMax: 10.1.8.0: it is below SubnetMin 10.1.9.0",
        ),
        (
            r#""IPv6SubnetLen": 127"#,
            "IPv6SubnetLen: 127: write 50 to 126",
        ),
        (
            r#""IPv6SubnetMin": "fd00:0:0:1::7""#,
            "IPv6SubnetMin: fd00:0:0:1::7: write a subnet's first address, fd00:0:0:1::",
        ),
    ] {
        assert_eq!(with(keys), format!("net-conf.json: {said}"));
    }
    assert_eq!(
        error(
            r#"{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00::/48", "Backend": {"Type": "vxlan"}}"#
        ),
        "net-conf.json: EnableIPv4: false: leases in etcd are named by IPv4 subnets; write true, or use --kube-subnet-mgr"
    );
}

#[test]
fn a_wrong_net_conf_is_one_line_with_field_value_and_remedy() {
    assert_eq!(
        net_error(r#"{"Network": "10.244.0.0/33", "Backend": {"Type": "vxlan"}}"#),
        "net-conf.json: Network: 10.244.0.0/33: write the pods' IPv4 network, e.g. \"10.244.0.0/16\""
    );
    assert_eq!(
        net_error(r#"{"Network": "10.244.1.0/16", "Backend": {"Type": "vxlan"}}"#),
        "net-conf.json: Network: 10.244.1.0/16: host bits are set; write 10.244.0.0/16"
    );
    assert_eq!(
        net_error(r#"{"Backend": {"Type": "vxlan"}}"#),
        "net-conf.json: Network: (missing): write the pods' IPv4 network, e.g. \"10.244.0.0/16\""
    );
    assert_eq!(
        net_error(r#"{"Network": "10.244.0.0/16"}"#),
        "net-conf.json: Backend.Type: (missing): write \"vxlan\", \"host-gw\", \"ipip\", \"wireguard\" or \"alloc\""
    );
    assert_eq!(
        net_error(r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "VNI": "1"}}"#),
        "net-conf.json: Backend.VNI: \"1\": write a whole number from 1 to 16777215"
    );
    assert_eq!(
        net_error(
            r#"{"Network": "10.1.0.0/16", "network": "10.2.0.0/16", "Backend": {"Type": "vxlan"}}"#
        ),
        "net-conf.json: network: \"10.2.0.0/16\": Network is the same key; keep one of them"
    );
    assert_eq!(
        net_error(
            r#"{"Network": null, "EnableIPv6": true, "IPv6Network": "fd00::/48", "Backend": null}"#
        ),
        "net-conf.json: Network: (missing): write the pods' IPv4 network, e.g. \"10.244.0.0/16\""
    );
    assert_eq!(
        net_error(
            r#"{"Network": "10.1.0.0/16", "EnableIPv6": true, "Backend": {"Type": "vxlan"}}"#
        ),
        "net-conf.json: IPv6Network: (missing): write the pods' IPv6 network, e.g. \"fd00:244::/48\""
    );
    assert!(net_error("{\"Network\": }").starts_with("net-conf.json: line 1 column 13: "));
    assert_eq!(
        net_error("[]"),
        "net-conf.json: (document): []: write a JSON object"
    );
}

#[test]
fn defaults_are_those_of_the_reference() {
    let config = checked(Settings::default()).unwrap();
    assert_eq!(
        config.annotations.public_ip,
        "flannel.alpha.coreos.com/public-ip"
    );
    assert_eq!(
        config.subnet_files,
        [
            PathBuf::from("/run/flannel/subnet.env"),
            PathBuf::from("/run/towline/subnet.env")
        ]
    );
    assert_eq!(config.socket, PathBuf::from("/run/towline/towlined.sock"));
    assert_eq!(config.metrics, Some("127.0.0.1:10249".parse().unwrap()));
    assert_eq!(config.healthz, ["0.0.0.0:10256".parse().unwrap()]);
    assert_eq!(config.resync, Duration::from_secs(10));
    assert!(config.overlay.rules.masquerade && config.services && config.policy);
}

#[test]
fn flannels_health_port_is_answered_beside_ours() {
    let config = checked(Settings {
        healthz_port: Some(8081),
        metrics_bind_address: Some(Bind(None)),
        ..Settings::default()
    })
    .unwrap();
    assert_eq!(
        config.healthz,
        [
            "0.0.0.0:10256".parse().unwrap(),
            "0.0.0.0:8081".parse().unwrap()
        ]
    );
    assert_eq!(config.metrics, None);
}

#[test]
fn wrong_settings_are_one_line_each() {
    let message = |settings: Settings| checked(settings).unwrap_err().to_string();
    let with = |change: fn(&mut Settings)| {
        let mut settings = Settings::default();
        change(&mut settings);
        settings
    };
    assert_eq!(
        message(with(|s| s.state_dir = Some("run".into()))),
        "settings: state-dir: run: write an absolute path without `..`"
    );
    assert_eq!(
        message(with(|s| s.state_dir = Some("/run/../etc".into()))),
        "settings: state-dir: /run/../etc: write an absolute path without `..`"
    );
    assert_eq!(
        message(with(|s| s.node_name = Some("Node_1".into()))),
        "settings: node-name: Node_1: write the name of this node's Node object: lower case letters, digits, `-` and `.`"
    );
    assert_eq!(
        message(with(|s| s.resync_seconds = Some(0))),
        "settings: resync-seconds: 0: write a whole number from 1 to 3600"
    );
    assert!(
        message(with(|s| s.iface_regex = vec!["eth(".into()]))
            .starts_with("settings: iface-regex: eth(: ")
    );
    assert_eq!(
        message(with(|s| s.kube_annotation_prefix = Some("A/b/c".into()))),
        "settings: kube-annotation-prefix: A/b/c: write a domain, or domain/name, of lower case letters, digits, `-` and `.`"
    );
}

#[test]
fn a_wrong_file_is_one_line() {
    let error = |text: &str| parse_file("towlined.yaml", text).unwrap_err().to_string();
    assert_eq!(
        error("node-name: a\nnodename: b\n"),
        "towlined.yaml: nodename: b: no such key; the keys are the flags of `towlined --help` without dashes in front"
    );
    assert!(error("policy: perhaps\n").starts_with("towlined.yaml: policy: perhaps: "));
    assert!(error("metrics-bind-address: x\n").contains("\"x\" is not IP:PORT"));
    assert!(error("- a\n").starts_with("towlined.yaml: (document): "));
    let read = parse_file(
        "towlined.yaml",
        "iface:\n- eth0\n- eth1\nhealthz-bind-address: none\n",
    )
    .unwrap();
    assert_eq!(read.iface, ["eth0", "eth1"]);
    assert_eq!(read.healthz_bind_address, Some(Bind(None)));
    assert_eq!(
        parse_file("towlined.yaml", "# nothing\n").unwrap(),
        Settings::default()
    );
}

#[test]
fn the_default_file_may_be_absent_but_a_named_one_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.yaml");
    let error = read_file(Some(&missing)).unwrap_err();
    assert_eq!(error.field, "config");
    assert!(error.remedy.ends_with("; name a readable file"));
}

#[test]
fn etcd_is_reached_as_flanneld_reaches_it_and_half_a_setting_is_named() {
    let of = |change: &dyn Fn(&mut Settings)| {
        let mut settings = Settings::default();
        change(&mut settings);
        etcd::settings(&settings).map_err(|error| error.to_string())
    };
    let usual = of(&|_| {}).unwrap();
    assert_eq!(usual.endpoints, ["http://127.0.0.1:2379"]);
    assert_eq!(usual.leases_prefix(), "/coreos.com/network/subnets/");
    let secure = of(&|s| {
        s.etcd_endpoints = vec!["https://192.0.2.1:2379".to_owned()];
        s.etcd_prefix = Some("/mine/".to_owned());
        s.etcd_certfile = Some("/c".into());
        s.etcd_keyfile = Some("/k".into());
    });
    let secure = secure.unwrap();
    assert_eq!(secure.config_key(), "/mine/config");
    assert_eq!(secure.identity, Some(("/c".into(), "/k".into())));
    for (change, said) in [
        (
            &(|s: &mut Settings| s.etcd_endpoints = vec!["192.0.2.1:2379".to_owned()])
                as &dyn Fn(&mut Settings),
            "settings: etcd-endpoints: 192.0.2.1:2379: write http:// or https://, address and port, e.g. http://127.0.0.1:2379",
        ),
        (
            &|s: &mut Settings| {
                s.etcd_endpoints = ["https://192.0.2.1:2379", "http://192.0.2.2:2379"]
                    .map(str::to_owned)
                    .into();
            },
            "settings: etcd-endpoints: http://192.0.2.2:2379: write https:// for all of them, or for none",
        ),
        (
            &|s: &mut Settings| s.etcd_prefix = Some("mine".to_owned()),
            "settings: etcd-prefix: mine: write a key that begins with /, e.g. /coreos.com/network",
        ),
        (
            &|s: &mut Settings| s.etcd_keyfile = Some("/k".into()),
            "settings: etcd-certfile: (missing): etcd-keyfile /k needs it; give both or none",
        ),
        (
            &|s: &mut Settings| s.etcd_username = Some("a".to_owned()),
            "settings: etcd-password: (missing): etcd-username a needs it; give both or none",
        ),
    ] {
        assert_eq!(of(change).unwrap_err(), said);
    }
}
