//! Calling CNI plugins as a container runtime does: configuration list, environment, standard input,
//! chained prevResult (CNI 1.1.0, sections 2 to 4).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use protocol::Version;
use protocol::runtime::{NetworkList, plugin_config};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Longest a plugin may take; after that it is ended.
const PLUGIN_LIMIT: Duration = Duration::from_secs(60);

/// A network configuration list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// CNI version of configuration and results.
    #[serde(rename = "cniVersion")]
    pub version: Version,
    /// Name of the network.
    pub name: String,
    /// Plugins, in the order of ADD.
    pub plugins: Vec<Map<String, Value>>,
}

/// One interface of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The runtime's id of the sandbox.
    pub container_id: String,
    /// Path of its network namespace.
    pub netns: PathBuf,
    /// Name of the interface inside.
    pub ifname: String,
    /// CNI_ARGS, `K=V;…`.
    pub args: String,
    /// Capability arguments, such as `portMappings`.
    pub capabilities: Map<String, Value>,
}

/// Where plugins and configurations are.
#[derive(Debug, Clone)]
pub struct Cni {
    /// Folder of the plugins.
    pub bin_dir: PathBuf,
    /// Folder of the configurations.
    pub conf_dir: PathBuf,
}

/// The error object that a plugin prints.
#[derive(Debug, Deserialize)]
struct PluginError {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

impl Cni {
    /// The first configuration of the folder by name, as kubelet's runtimes choose it.
    ///
    /// # Errors
    /// When there is none, or it is not valid.
    pub fn network(&self) -> Result<Network> {
        let dir = &self.conf_dir;
        let mut files = std::fs::read_dir(dir)
            .with_context(|| format!("list {}", dir.display()))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|ext| ext == "conflist" || ext == "conf" || ext == "json")
            })
            .collect::<Vec<_>>();
        files.sort();
        let Some(file) = files.first() else {
            bail!("no CNI configuration in {}", dir.display());
        };
        let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        parse_network(&text).with_context(|| format!("{}", file.display()))
    }

    /// ADD through the whole list; gives the last result. When a plugin fails, the caller must DEL.
    ///
    /// # Errors
    /// The failing plugin's message, with its type.
    pub async fn add(&self, network: &Network, to: &Attachment) -> Result<Value> {
        let mut result = None;
        for plugin in &network.plugins {
            let conf = plugin_conf(network, plugin, &to.capabilities, result.as_ref());
            let output = self.call("ADD", plugin, &conf, Some(to)).await?;
            result = Some(serde_json::from_slice(&output).with_context(|| {
                format!("CNI plugin {:?} printed no JSON result", plugin.get("type"))
            })?);
        }
        result.context("the CNI configuration lists no plugin")
    }

    /// DEL through the list backwards, every plugin even when one fails.
    ///
    /// # Errors
    /// The first failure.
    pub async fn del(
        &self,
        network: &Network,
        from: &Attachment,
        added: Option<&Value>,
    ) -> Result<()> {
        let mut first = Ok(());
        for plugin in network.plugins.iter().rev() {
            let conf = plugin_conf(network, plugin, &from.capabilities, added);
            let done = self
                .call("DEL", plugin, &conf, Some(from))
                .await
                .map(|_| ());
            if first.is_ok() {
                first = done;
            }
        }
        first
    }

    /// GC: everything that is not listed in `valid` may go. Nothing happens below version 1.1.0.
    ///
    /// # Errors
    /// The first failing plugin's message.
    pub async fn gc(&self, network: &Network, valid: &[Attachment]) -> Result<()> {
        if network.version < Version::V110 {
            return Ok(());
        }
        let valid = valid
            .iter()
            .map(|a| json!({"containerID": a.container_id, "ifname": a.ifname}))
            .collect::<Vec<_>>();
        for plugin in &network.plugins {
            let mut conf = plugin_conf(network, plugin, &Map::new(), None);
            conf.insert("cni.dev/valid-attachments".to_owned(), json!(valid));
            self.call("GC", plugin, &conf, None).await?;
        }
        Ok(())
    }

    /// STATUS: whether the network can take an ADD. Below version 1.1.0 the answer is always yes.
    ///
    /// # Errors
    /// The first plugin's reason why not.
    pub async fn status(&self, network: &Network) -> Result<()> {
        if network.version < Version::V110 {
            return Ok(());
        }
        for plugin in &network.plugins {
            let conf = plugin_conf(network, plugin, &Map::new(), None);
            self.call("STATUS", plugin, &conf, None).await?;
        }
        Ok(())
    }

    async fn call(
        &self,
        verb: &str,
        plugin: &Map<String, Value>,
        conf: &Map<String, Value>,
        attachment: Option<&Attachment>,
    ) -> Result<Vec<u8>> {
        let kind = plugin
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let mut command = Command::new(self.bin_dir.join(kind));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", &self.bin_dir);
        if let Some(to) = attachment {
            command
                .env("CNI_CONTAINERID", &to.container_id)
                .env("CNI_NETNS", &to.netns)
                .env("CNI_IFNAME", &to.ifname)
                .env("CNI_ARGS", &to.args);
        }
        let stdin = serde_json::to_vec(conf).context("encode the plugin's configuration")?;
        let exchange = exchange(&mut command, &stdin);
        let output = tokio::time::timeout(PLUGIN_LIMIT, exchange)
            .await
            .map_err(|_| anyhow!("CNI plugin {kind} {verb} took more than {PLUGIN_LIMIT:?}"))?
            .with_context(|| format!("run CNI plugin {kind}"))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match serde_json::from_slice::<PluginError>(&output.stdout) {
            Ok(PluginError { code, msg, details }) => {
                bail!("CNI plugin {kind} {verb} failed: {msg} (code {code}) {details} {stderr}")
            }
            Err(_) => bail!(
                "CNI plugin {kind} {verb} failed ({}): {stderr}",
                output.status
            ),
        }
    }
}

async fn exchange(command: &mut Command, stdin: &[u8]) -> std::io::Result<std::process::Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // A plugin that fails early may not read its input; its own message counts.
        let _ = pipe.write_all(stdin).await;
    }
    child.wait_with_output().await
}

/// The network that gives every sandbox its loopback interface, as containerd has it.
pub fn loopback() -> Network {
    Network {
        version: Version::V100,
        name: "cni-loopback".to_owned(),
        plugins: vec![Map::from_iter([("type".to_owned(), json!("loopback"))])],
    }
}

/// The addresses of the sandbox's own interfaces in a result (versions 0.3.0 and later).
pub fn addresses(result: &Value) -> Vec<std::net::IpAddr> {
    let interfaces = result["interfaces"].as_array().cloned().unwrap_or_default();
    let inside = |ip: &Value| match ip["interface"].as_u64() {
        Some(index) => usize::try_from(index)
            .ok()
            .and_then(|index| interfaces.get(index))
            .is_some_and(|interface| !interface["sandbox"].as_str().unwrap_or_default().is_empty()),
        None => true,
    };
    let ips = result["ips"].as_array().cloned().unwrap_or_default();
    ips.iter()
        .filter(|ip| inside(ip))
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
        .collect()
}

fn parse_network(text: &[u8]) -> Result<Network> {
    let value: Value = serde_json::from_slice(text).context("not JSON")?;
    let list = match value.get("plugins") {
        Some(_) => NetworkList::parse(text)?,
        None => NetworkList::parse_single(text)?,
    };
    Ok(Network {
        version: list.version,
        name: list.name,
        plugins: list.plugins,
    })
}

fn plugin_conf(
    network: &Network,
    plugin: &Map<String, Value>,
    capabilities: &Map<String, Value>,
    previous: Option<&Value>,
) -> Map<String, Value> {
    let (name, version) = (&network.name, network.version);
    plugin_config(name, version, plugin, capabilities, previous)
}

/// CNI_ARGS of a pod's sandbox, as every Kubernetes runtime sets them.
pub fn pod_args(namespace: &str, name: &str, uid: &str, sandbox: &str) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};\
         K8S_POD_INFRA_CONTAINER_ID={sandbox};K8S_POD_UID={uid}"
    )
}

/// Whether `path` is a folder with at least one file, for messages.
pub fn has_plugins(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn a_plugin_sees_its_keys_its_capabilities_and_the_result_before_it() {
        let network = parse_network(
            br#"{"cniVersion":"1.0.0","name":"n","plugins":[
                {"type":"a"},{"type":"portmap","capabilities":{"portMappings":true,"dns":false}}]}"#,
        )
        .unwrap();
        let given = json!({"portMappings":[{"hostPort":1}],"dns":{},"bandwidth":{}});
        let conf = plugin_conf(
            &network,
            &network.plugins[1],
            given.as_object().unwrap(),
            Some(&json!({"ips":[]})),
        );
        assert_eq!(
            Value::Object(conf),
            json!({"type":"portmap","name":"n","cniVersion":"1.0.0",
                "capabilities":{"portMappings":true,"dns":false},
                "runtimeConfig":{"portMappings":[{"hostPort":1}]},"prevResult":{"ips":[]}})
        );
    }

    #[test]
    fn only_addresses_inside_the_sandbox_are_the_pods() {
        let result = json!({
            "interfaces":[{"name":"cni0"},{"name":"eth0","sandbox":"/run/netns/x"}],
            "ips":[{"address":"10.1.0.1/24","interface":0},{"address":"10.1.0.5/24","interface":1},
                   {"address":"fd00::5/64","interface":1}]});
        let expected: Vec<std::net::IpAddr> =
            vec!["10.1.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(addresses(&result), expected);
    }

    #[test]
    fn a_type_that_is_a_path_is_refused() {
        let conf = br#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"../sh"}]}"#;
        assert!(parse_network(conf).is_err());
    }
}
