//! A list of plugins run as a runtime runs it: each gets what the ones before it returned, and DEL
//! goes backwards.

use serde_json::{Value, json};

use crate::node::{Node, Pod};
use crate::world::{Answer, Attachment};

/// The plugins of one network, for one interface of one pod.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    plugins: Vec<Attachment>,
    result: Option<Value>,
}

// === impl Chain ===

impl Chain {
    /// `plugins` of network `net` by `version`, for `pod`.
    pub(crate) fn new(node: &Node, version: &str, plugins: &[Value], pod: &Pod) -> Self {
        let attach = |plugin: &Value| {
            let mut config = plugin.clone();
            config["cniVersion"] = version.into();
            config["name"] = "net".into();
            node.attach(&config, pod)
        };
        Self {
            plugins: plugins.iter().map(attach).collect(),
            result: None,
        }
    }

    /// The names of the plugins.
    pub(crate) fn names(&self) -> Vec<String> {
        self.plugins.iter().map(|one| one.plugin.clone()).collect()
    }

    /// The attachment has the interface `name`, not `eth0`.
    pub(crate) fn called(mut self, name: &str) -> Self {
        for plugin in &mut self.plugins {
            name.clone_into(&mut plugin.ifname);
        }
        self
    }

    /// What ADD returned.
    pub(crate) fn result(&self) -> &Value {
        self.result.as_ref().unwrap()
    }

    /// The pod's first address, without its length.
    pub(crate) fn address(&self) -> String {
        let text = self.result()["ips"][0]["address"].as_str().unwrap();
        text.split('/').next().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn add(&mut self, node: &Node) {
        let answer = self.try_add(node);
        assert!(answer.success, "ADD of {:?}: {answer:?}", self.names());
    }

    /// ADD of one plugin after the other, up to the first that fails.
    pub(crate) fn try_add(&mut self, node: &Node) -> Answer {
        let mut last = None;
        for plugin in &mut self.plugins {
            if let Some(result) = &self.result {
                plugin.config["prevResult"] = result.clone();
            }
            let answer = node.does("ADD", plugin);
            if answer.success {
                self.result = Some(answer.json());
            }
            let ended = !answer.success;
            last = Some(answer);
            if ended {
                break;
            }
        }
        last.unwrap()
    }

    /// CHECK of every plugin; the first that fails is returned.
    pub(crate) fn check(&self, node: &Node) -> Result<(), String> {
        self.each(self.plugins.iter(), |plugin| node.does("CHECK", plugin))
    }

    /// CHECK of every plugin by itself.
    pub(crate) fn checks(&self, node: &Node) -> Vec<(String, Result<(), String>)> {
        let check = |plugin| {
            let outcome = self.each(std::iter::once(plugin), |plugin| node.does("CHECK", plugin));
            (plugin.plugin.clone(), outcome)
        };
        self.plugins.iter().map(check).collect()
    }

    /// DEL of every plugin, also past failures; the first of these is returned.
    pub(crate) fn del(&self, node: &Node) -> Result<(), String> {
        self.each(self.plugins.iter().rev(), |plugin| node.does("DEL", plugin))
    }

    /// GC of every plugin by 1.1.0, `valid` being all attachments that are left.
    pub(crate) fn gc(&self, node: &Node, valid: &[&Self]) -> Result<(), String> {
        let valid: Vec<&Attachment> = valid.iter().map(|chain| &chain.plugins[0]).collect();
        self.each(self.plugins.iter(), |plugin| node.collects(plugin, &valid))
    }

    /// Forgets what ADD returned, as a runtime that lost its cache.
    pub(crate) fn forget(&mut self) {
        self.result = None;
    }

    /// Forgets the pod's namespace.
    pub(crate) fn without_netns(mut self) -> Self {
        for plugin in &mut self.plugins {
            plugin.netns = None;
        }
        self
    }

    fn each<'a>(
        &'a self,
        plugins: impl Iterator<Item = &'a Attachment>,
        call: impl Fn(&Attachment) -> Answer,
    ) -> Result<(), String> {
        let mut outcome = Ok(());
        for plugin in plugins {
            let mut plugin = plugin.clone();
            let config = plugin.config.as_object_mut().unwrap();
            config.remove("prevResult");
            // DEL gets prevResult from 0.4.0 on.
            let known = !config["cniVersion"].as_str().unwrap().starts_with("0.3");
            if let Some(result) = self.result.as_ref().filter(|_| known) {
                plugin.config["prevResult"] = result.clone();
            }
            let answer = call(&plugin);
            if !answer.success && outcome.is_ok() {
                outcome = Err(format!("{}: {}", plugin.plugin, answer.stdout));
            }
        }
        outcome
    }
}

/// `bridge` with host-local.
pub(crate) fn bridge(node: &Node) -> Value {
    json!({
        "type": "bridge", "bridge": "br0", "isGateway": true, "hairpinMode": true,
        "ipam": addresses(node),
    })
}

/// host-local addresses and a default route.
pub(crate) fn addresses(node: &Node) -> Value {
    json!({
        "type": "host-local", "dataDir": node.path("state"), "subnet": "10.1.0.0/24",
        "routes": [{ "dst": "0.0.0.0/0" }],
    })
}

/// `portmap` of TCP port `host` of the node to the pod's 7000.
pub(crate) fn portmap(host: u16) -> Value {
    json!({
        "type": "portmap",
        "runtimeConfig": {
            "portMappings": [{ "hostPort": host, "containerPort": 7000, "protocol": "tcp" }],
        },
    })
}

/// `firewall` as it is by default.
pub(crate) fn firewall() -> Value {
    json!({ "type": "firewall" })
}

/// `bandwidth` limiting both directions to 80 Mbit/s.
pub(crate) fn bandwidth() -> Value {
    json!({
        "type": "bandwidth", "ingressRate": 80_000_000, "ingressBurst": 800_000,
        "egressRate": 80_000_000, "egressBurst": 800_000,
    })
}

/// `tuning` of a sysctl and an attribute of the pod's interface.
pub(crate) fn tuning(node: &Node) -> Value {
    json!({
        "type": "tuning", "sysctl": { "net.ipv4.conf.eth0.arp_filter": "1" }, "allmulti": true,
        "dataDir": node.path("tuning"),
    })
}
