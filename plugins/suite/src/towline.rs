//! `towline`: reads the daemon's subnet file, delegates to `ptp` or `bridge` with host-local
//! addresses, and registers the endpoint with the daemon, so that the pod's policy is in force
//! before the pod starts.

pub mod config;
pub mod daemon;
pub mod http;
pub mod plan;
pub mod saved;
pub mod subnet;

use hostnet::{Netlink, netns};
use protocol::{AddResult, Attachment, Command, Error, Plugin, Request};

use crate::pod;
use crate::towline::config::Config;
use crate::towline::daemon::Daemon;
use crate::towline::saved::Saved;
use crate::towline::subnet::Subnet;

/// The plugin.
#[derive(Debug)]
pub struct Towline;

impl Plugin for Towline {
    fn name(&self) -> &'static str {
        "towline"
    }

    fn add(&self, request: &Request<'_>) -> Result<AddResult, Error> {
        let config = config::read(request)?;
        let netns = pod::open(request)?;
        let mut inside = Netlink::open_in(&netns).map_err(|error| pod::kernel(&error))?;
        pod::refuse_taken(request, &mut inside)?;
        let daemon = Daemon::new(&config);
        daemon.check_present()?;
        let subnet = Subnet::read(&config.subnet_file)?;
        let delegate = plan::delegate(request, &config, &subnet)?;
        let saved = Saved::new(&config.data_dir);
        saved.write(&request.container_id, &request.ifname, &delegate)?;
        let outcome = request
            .delegate_add(&config.delegate_type, &delegate)
            .and_then(|result| {
                let inside = netns
                    .run_in(netns::cookie)
                    .map_err(|error| pod::kernel(&error))?;
                let cookie = inside.map_err(|error| pod::kernel(&error))?;
                let endpoint = plan::endpoint(request, &config, &result, cookie)?;
                daemon.register(request, &endpoint)?;
                Ok(result)
            });
        outcome.map_err(|error| undo(request, &config, &daemon, &saved, &delegate, error))
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let saved = Saved::new(&config.data_dir);
        // A daemon that is down forgets the endpoint when it comes back and finds no interface.
        let deregistered = Daemon::new(&config).deregister(request);
        let Some(delegate) = replayed(request, &config, &saved)? else {
            return deregistered;
        };
        let plugin = plan::delegate_type(&delegate)?;
        request.delegate_call(&plugin, Command::Del, &delegate)?;
        saved.remove(&request.container_id, &request.ifname)?;
        deregistered
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let saved = Saved::new(&config.data_dir);
        let Some(delegate) = saved.read(&request.container_id, &request.ifname)? else {
            let msg = format!(
                "container {} was not attached by towline",
                request.container_id
            );
            return Err(Error::unknown_container(msg));
        };
        let delegate = plan::with_previous(request, &delegate)?;
        request.delegate_call(&plan::delegate_type(&delegate)?, Command::Check, &delegate)?;
        Daemon::new(&config).check_registered(request)
    }

    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        let config = config::read(request)?;
        let mut outcome = Ok(());
        if let Some(valid) = valid {
            let (saved, daemon) = (Saved::new(&config.data_dir), Daemon::new(&config));
            for one in saved.attachments()? {
                if valid.contains(&one) || !is_of_network(&saved, &one, &request.network)? {
                    continue;
                }
                outcome = outcome.and(daemon.deregister_attachment(&one));
                outcome = outcome.and(saved.remove(&one.container_id, &one.ifname));
            }
        }
        match Subnet::read(&config.subnet_file) {
            Ok(subnet) => {
                let delegate = plan::delegate(request, &config, &subnet)?;
                outcome.and(request.delegate_call(&config.delegate_type, Command::Gc, &delegate))
            }
            // Without a subnet there is no delegate to tell, and nothing that it could hold.
            Err(_) => outcome,
        }
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let unavailable = |error: Error| Error::not_available(error.msg).details(error.details);
        Daemon::new(&config).check_present().map_err(unavailable)?;
        let subnet = Subnet::read(&config.subnet_file).map_err(unavailable)?;
        let delegate = plan::delegate(request, &config, &subnet)?;
        request.delegate_call(&config.delegate_type, Command::Status, &delegate)
    }
}

/// Whether an attachment was made for `network`: all networks' configurations are in one folder, and
/// the runtime says only which attachments of its own network are valid.
fn is_of_network(saved: &Saved, one: &Attachment, network: &str) -> Result<bool, Error> {
    let delegate = saved.read(&one.container_id, &one.ifname)?;
    Ok(delegate.is_some_and(|delegate| plan::network(&delegate).as_deref() == Some(network)))
}

/// The delegate's configuration as it was at ADD, or else as it would be now; `None` when neither
/// can be had, because then there is nothing to detach.
fn replayed(
    request: &Request<'_>,
    config: &Config,
    saved: &Saved,
) -> Result<Option<Vec<u8>>, Error> {
    if let Some(delegate) = saved.read(&request.container_id, &request.ifname)? {
        return Ok(Some(delegate));
    }
    match Subnet::read(&config.subnet_file) {
        Ok(subnet) => plan::delegate(request, config, &subnet).map(Some),
        Err(_) => Ok(None),
    }
}

/// Takes a failed ADD back, and says what could not be.
fn undo(
    request: &Request<'_>,
    config: &Config,
    daemon: &Daemon<'_>,
    saved: &Saved,
    delegate: &[u8],
    error: Error,
) -> Error {
    let steps = [
        daemon.deregister(request),
        request.delegate_call(&config.delegate_type, Command::Del, delegate),
        saved.remove(&request.container_id, &request.ifname),
    ];
    let mut details = error.details.clone();
    for failure in steps.into_iter().filter_map(Result::err) {
        let separator = if details.is_empty() { "" } else { "; " };
        details += &format!("{separator}then, undoing: {failure}");
    }
    error.details(details)
}
