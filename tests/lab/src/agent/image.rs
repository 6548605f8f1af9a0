//! What stands for container images: the built-in applets, and programs of the machine itself.

use std::fmt;
use std::path::Path;

use k8s_openapi::api::core::v1::Container;

/// Why an image cannot be run, in kubelet's terms.
#[derive(Debug, PartialEq, Eq)]
pub struct ImageError {
    /// CamelCase reason of the container's waiting state.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The command line of a container, with `args` already expanded. `agent` is the node-agent executable.
///
/// # Errors
/// When the image is unknown, or is one without a program of its own and none is given.
pub fn argv(agent: &Path, container: &Container) -> Result<Vec<String>, ImageError> {
    let image = container.image.as_deref().unwrap_or_default();
    let command = container.command.clone().unwrap_or_default();
    let args = container.args.clone().unwrap_or_default();
    let applet = [agent.display().to_string(), "applet".to_owned()];
    match base_name(image) {
        "agnhost" => {
            // The image's own entry point is /agnhost; anything else is a program of the machine.
            let own = command
                .first()
                .is_none_or(|first| first == "/agnhost" || first == "agnhost");
            let rest = command
                .iter()
                .skip(1)
                .chain(&args)
                .cloned()
                .collect::<Vec<_>>();
            match (own, rest.is_empty()) {
                (true, true) => Ok([applet.as_slice(), &["pause".to_owned()]].concat()),
                (true, false) => Ok([applet.as_slice(), &rest].concat()),
                (false, _) => Ok([command, args].concat()),
            }
        }
        "pause" => Ok([applet.as_slice(), &["pause".to_owned()]].concat()),
        "busybox" | "host" => {
            let argv = [command, args].concat();
            if argv.is_empty() {
                return Err(ImageError {
                    reason: "CreateContainerConfigError",
                    message: format!("image {image:?} has no program of its own: give command"),
                });
            }
            Ok(argv)
        }
        _ => Err(ImageError {
            reason: "ErrImagePull",
            message: format!(
                "image {image:?}: the lab has no registry; use towline.dev/agnhost, \
                 towline.dev/pause, busybox or towline.dev/host"
            ),
        }),
    }
}

/// Last path component without tag and digest.
fn base_name(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split(['@', ':']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    fn container(image: &str, command: &[&str], args: &[&str]) -> Container {
        let list = |items: &[&str]| {
            (!items.is_empty()).then(|| items.iter().map(|i| (*i).to_owned()).collect())
        };
        Container {
            image: Some(image.to_owned()),
            command: list(command),
            args: list(args),
            ..Default::default()
        }
    }

    #[test]
    fn images_become_programs() {
        let agent = Path::new("/a");
        let run = |image: &str, command: &[&str], args: &[&str]| {
            argv(agent, &container(image, command, args)).map(|argv| argv.join(" "))
        };
        assert_eq!(
            run("towline.dev/agnhost:1", &[], &["netexec"]).unwrap(),
            "/a applet netexec"
        );
        assert_eq!(
            run("agnhost@sha256:1", &["/agnhost", "pause"], &[]).unwrap(),
            "/a applet pause"
        );
        assert_eq!(
            run("agnhost", &["sh"], &["-c", "true"]).unwrap(),
            "sh -c true"
        );
        assert_eq!(
            run("registry.k8s.io/pause:3.10", &[], &[]).unwrap(),
            "/a applet pause"
        );
        assert_eq!(run("busybox", &["sleep", "1"], &[]).unwrap(), "sleep 1");
        assert_eq!(
            run("busybox", &[], &[]).unwrap_err().reason,
            "CreateContainerConfigError"
        );
        assert_eq!(run("nginx:1", &[], &[]).unwrap_err().reason, "ErrImagePull");
    }
}
