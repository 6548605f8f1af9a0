//! PURE: `vlan`, `vlanTrunk` and `preserveDefaultVlan`.

use netstate::PortVlans;
use protocol::Error;
use serde::Deserialize;

/// The highest VLAN there is.
const LAST: i64 = 4094;
/// The VLAN of untagged frames on a trunk whose configuration names none.
const NATIVE: u16 = 1;

/// One element of `vlanTrunk`: one VLAN, a range of them, or both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RawTrunk {
    id: Option<i64>,
    #[serde(rename = "minID")]
    min_id: Option<i64>,
    #[serde(rename = "maxID")]
    max_id: Option<i64>,
}

/// The VLANs of a pod's port; `None` without any, where the bridge need not keep VLANs apart.
///
/// # Errors
/// Code 7 naming the field.
pub fn read(
    vlan: i64,
    trunk: Option<&[RawTrunk]>,
    keep_default: bool,
) -> Result<Option<PortVlans>, Error> {
    let untagged = match vlan {
        0 => None,
        _ => Some(number("vlan", vlan)?),
    };
    let mut tagged = Vec::new();
    for one in trunk.unwrap_or_default() {
        tagged.extend(ranges(*one)?);
    }
    if untagged.is_none() && trunk.is_none() {
        return Ok(None);
    }
    Ok(Some(PortVlans {
        keep: keep_default,
        untagged: untagged.or((!tagged.is_empty()).then_some(NATIVE)),
        tagged: without(merged(tagged), untagged),
    }))
}

fn ranges(trunk: RawTrunk) -> Result<Vec<(u16, u16)>, Error> {
    let mut found = Vec::new();
    match (trunk.min_id, trunk.max_id) {
        (Some(min), Some(max)) => {
            let (min, max) = (
                number("vlanTrunk.minID", min)?,
                number("vlanTrunk.maxID", max)?,
            );
            if min > max {
                let msg = format!("vlanTrunk: minID {min} is above maxID {max}; swap them");
                return Err(Error::config(msg));
            }
            found.push((min, max));
        }
        (None, None) => {}
        (min, _) => {
            let missing = if min.is_some() { "maxID" } else { "minID" };
            return Err(Error::config(format!(
                "vlanTrunk: {missing} is missing; give both ends of the range"
            )));
        }
    }
    if let Some(id) = trunk.id {
        let id = number("vlanTrunk.id", id)?;
        found.push((id, id));
    }
    Ok(found)
}

fn number(field: &str, value: i64) -> Result<u16, Error> {
    let sound = u16::try_from(value)
        .ok()
        .filter(|_| (1..=LAST).contains(&value));
    sound.ok_or_else(|| {
        Error::config(format!(
            "{field}: {value} is no VLAN; give one from 1 to {LAST}"
        ))
    })
}

/// The same VLANs in ranges that neither overlap nor touch, in order.
fn merged(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut kept: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match kept.last_mut() {
            Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
            _ => kept.push((first, last)),
        }
    }
    kept
}

/// The VLAN of untagged frames is not tagged also.
fn without(ranges: Vec<(u16, u16)>, vlan: Option<u16>) -> Vec<(u16, u16)> {
    let Some(vlan) = vlan else { return ranges };
    let split = |(first, last): (u16, u16)| {
        let parts = if (first..=last).contains(&vlan) {
            [(first, vlan - 1), (vlan + 1, last)]
        } else {
            [(first, last), (1, 0)]
        };
        parts.into_iter().filter(|(first, last)| first <= last)
    };
    ranges.into_iter().flat_map(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(vlan: i64, trunk: &str, keep: bool) -> Result<Option<PortVlans>, String> {
        let trunk: Option<Vec<RawTrunk>> = serde_json::from_str(trunk).unwrap();
        read(vlan, trunk.as_deref(), keep).map_err(|error| error.msg)
    }

    fn vlans(untagged: Option<u16>, tagged: &[(u16, u16)]) -> PortVlans {
        PortVlans {
            keep: false,
            untagged,
            tagged: tagged.to_vec(),
        }
    }

    #[test]
    fn a_port_is_untagged_in_its_own_vlan_and_tagged_in_the_trunks() {
        assert_eq!(plan(0, "null", false), Ok(None));
        assert_eq!(plan(5, "null", false), Ok(Some(vlans(Some(5), &[]))));
        let trunk = r#"[{"id":7},{"minID":10,"maxID":20},{"minID":15,"maxID":30,"id":31}]"#;
        assert_eq!(
            plan(0, trunk, false),
            Ok(Some(vlans(Some(1), &[(7, 7), (10, 31)])))
        );
        assert_eq!(
            plan(15, trunk, false),
            Ok(Some(vlans(Some(15), &[(7, 7), (10, 14), (16, 31)])))
        );
        assert_eq!(
            plan(0, "[]", true).unwrap().map(|port| port.keep),
            Some(true)
        );
    }

    #[test]
    fn what_is_no_vlan_is_named() {
        let refusal = |vlan, trunk| plan(vlan, trunk, false).unwrap_err();
        assert_eq!(
            refusal(4095, "null"),
            "vlan: 4095 is no VLAN; give one from 1 to 4094"
        );
        assert_eq!(
            refusal(-1, "null"),
            "vlan: -1 is no VLAN; give one from 1 to 4094"
        );
        assert_eq!(
            refusal(0, r#"[{"id":0}]"#),
            "vlanTrunk.id: 0 is no VLAN; give one from 1 to 4094"
        );
        assert_eq!(
            refusal(0, r#"[{"minID":9}]"#),
            "vlanTrunk: maxID is missing; give both ends of the range"
        );
        assert_eq!(
            refusal(0, r#"[{"minID":9,"maxID":8}]"#),
            "vlanTrunk: minID 9 is above maxID 8; swap them"
        );
    }
}
