//! Which parameters may be set: `/etc/cni/tuning/allowlist.conf`, one regular expression a line.

use std::fs;
use std::io::ErrorKind;

use protocol::Error;
use regex_lite::Regex;

use crate::tuning::config::Sysctl;

const FILE: &str = "/etc/cni/tuning/allowlist.conf";

/// Refuses what no line of the file matches. Without the file everything may be set.
///
/// # Errors
/// Code 7 for a parameter that is not allowed or a line that is no expression, 5 when the file
/// cannot be read.
pub fn check(sysctls: &[Sysctl]) -> Result<(), Error> {
    if sysctls.is_empty() {
        return Ok(());
    }
    match fs::read_to_string(FILE) {
        Ok(text) => check_by(&text, sysctls),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(format!("cannot read {FILE}")).details(error)),
    }
}

fn check_by(text: &str, sysctls: &[Sysctl]) -> Result<(), Error> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let expression = |line: &str| {
        let bad = |error| Error::config(format!("{FILE}: {line:?}: {error}"));
        Regex::new(line).map_err(bad)
    };
    let allowed: Vec<Regex> = lines.map(expression).collect::<Result<_, _>>()?;
    let is_allowed = |sysctl: &&Sysctl| allowed.iter().any(|one| one.is_match(&sysctl.key));
    match sysctls.iter().find(|sysctl| !is_allowed(sysctl)) {
        Some(Sysctl { key, .. }) => Err(Error::config(format!(
            "sysctl {key:?} is not allowed; add a line for it to {FILE}"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_allows_what_it_matches_anywhere() {
        let of = |key: &str| {
            let (key, name, value) = (key.to_owned(), String::new(), String::new());
            [Sysctl { key, name, value }]
        };
        let text = "^net\\.ipv4\\.conf\\.\n\n  tcp_syncookies$ \n";
        assert!(check_by(text, &of("net.ipv4.conf.IFNAME.arp_filter")).is_ok());
        assert!(check_by(text, &of("net.ipv4.tcp_syncookies")).is_ok());
        let error = check_by(text, &of("net.ipv4.ip_forward")).unwrap_err();
        assert_eq!(
            error.msg,
            "sysctl \"net.ipv4.ip_forward\" is not allowed; add a line for it to \
             /etc/cni/tuning/allowlist.conf"
        );
        assert_eq!(check_by("(", &of("net.a")).unwrap_err().code, 7);
        assert!(
            check_by("", &of("net.a")).is_err(),
            "an empty list allows nothing"
        );
    }
}
