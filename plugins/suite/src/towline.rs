//! `towline`: reads the daemon's subnet file, delegates to `ptp` or `bridge` with host-local
//! addresses, and registers the endpoint with the daemon, so that the pod's policy is in force
//! before the pod starts.

pub mod config;
pub mod daemon;
pub mod http;
pub mod plan;

use hostnet::{Netlink, netns};
use protocol::{AddResult, Attachment, Command, Error, Plugin, Request};

use crate::delegate::{Delegate, forget, with_undoing};
use crate::pod;
use crate::saved::Saved;
use crate::subnet::Subnet;
use crate::towline::config::Config;
use crate::towline::daemon::Daemon;

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
        let delegate = plan::delegate(request, &config, Some(&subnet));
        let (saved, attachment) = (Saved::new(&config.data_dir), request.attachment());
        saved.write(&attachment, &delegate)?;
        let outcome = delegate.add(request).and_then(|result| {
            let inside = netns
                .run_in(netns::cookie)
                .map_err(|error| pod::kernel(&error))?;
            let cookie = inside.map_err(|error| pod::kernel(&error))?;
            let endpoint = plan::endpoint(request, &config, &result, cookie)?;
            daemon.register(request, &endpoint)?;
            Ok(result)
        });
        outcome.map_err(|error| {
            let undone = delegate.call(request, Command::Del);
            let forgotten = forget(&saved, &attachment, undone);
            with_undoing(error, [daemon.deregister(request), forgotten])
        })
    }

    fn delete(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        // A daemon that is down forgets the endpoint when it comes back and finds no interface.
        let deregistered = Daemon::new(&config).deregister(request);
        detach(request, &config).and(deregistered)
    }

    fn check(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let saved = Saved::new(&config.data_dir).read(&request.attachment())?;
        let Some(delegate) = saved else {
            let (id, ifname) = (&request.container_id, &request.ifname);
            let msg = format!("interface {ifname} of container {id} was not attached by towline");
            return Err(Error::unknown_container(msg));
        };
        delegate.replay_check(request)?;
        Daemon::new(&config).check_registered(request)
    }

    fn gc(&self, request: &Request<'_>, valid: Option<&[Attachment]>) -> Result<(), Error> {
        let config = config::read(request)?;
        let daemon = Daemon::new(&config);
        let swept = match valid {
            Some(valid) => Saved::new(&config.data_dir)
                .sweep(request, valid, &|one| daemon.deregister_attachment(one)),
            None => Ok(()),
        };
        current(request, &config)
            .call(request, Command::Gc)
            .and(swept)
    }

    fn status(&self, request: &Request<'_>) -> Result<(), Error> {
        let config = config::read(request)?;
        let unavailable = |error: Error| Error::not_available(error.msg).details(error.details);
        Daemon::new(&config).check_present().map_err(unavailable)?;
        let subnet = Subnet::read(&config.subnet_file).map_err(unavailable)?;
        plan::delegate(request, &config, Some(&subnet)).call(request, Command::Status)
    }
}

/// Replays the delegate's configuration as it was at ADD, or else as it would be now.
fn detach(request: &Request<'_>, config: &Config) -> Result<(), Error> {
    let (saved, attachment) = (Saved::new(&config.data_dir), request.attachment());
    match saved.read(&attachment)? {
        Some(delegate) => delegate.replay_del(request)?,
        None => current(request, config).call(request, Command::Del)?,
    }
    saved.remove(&attachment)
}

/// The delegate's configuration as it would be now. Without a subnet it still releases by owner.
fn current(request: &Request<'_>, config: &Config) -> Delegate {
    let subnet = Subnet::read(&config.subnet_file).ok();
    plan::delegate(request, config, subnet.as_ref())
}
