//! Resource quantities, what pods request and what nodes offer.

use k8s_openapi::api::core::v1::{Container, Node, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// Amounts by resource name, in thousandths.
pub(super) type Amounts = BTreeMap<String, i128>;

/// Pods a node takes when it does not say.
const DEFAULT_PODS: i128 = 110_000;

/// A quantity in thousandths, rounded up; `None` when the text is not a quantity.
pub(super) fn parse(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit() && !matches!(letter, '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (numerator, denominator) = scale(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = whole.starts_with('-');
    let whole = whole.trim_start_matches(['+', '-']);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mantissa: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let unit = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let numerator = mantissa.checked_mul(numerator)?;
    let denominator = denominator.checked_mul(unit)?;
    let amount = numerator.checked_add(denominator - 1)? / denominator;
    Some(if negative { -amount } else { amount })
}

/// The factor of a suffix towards thousandths, as a fraction.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let decimal = |power: u32| Some((1000 * 10_i128.checked_pow(power)?, 1));
    let binary = |power: u32| Some((1000 * 1024_i128.pow(power), 1));
    match suffix {
        "n" => Some((1, 1_000_000)),
        "u" => Some((1, 1000)),
        "m" => Some((1, 1)),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            match u32::try_from(power) {
                Ok(power) => decimal(power),
                Err(_) => Some((1000, 10_i128.checked_pow(power.unsigned_abs())?)),
            }
        }
    }
}

fn amounts(quantities: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    quantities
        .into_iter()
        .flatten()
        .filter_map(|(name, quantity)| Some((name.clone(), parse(quantity)?)))
        .collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += amount;
    }
}

fn raise(total: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let known = total.entry(name.clone()).or_default();
        *known = (*known).max(*amount);
    }
}

/// What a pod occupies on its node: the sum over its containers and sidecars, or what an init
/// container needs beside the sidecars before it, whichever is more; plus overhead, plus the pod.
pub(super) fn requests(pod: &Pod) -> Amounts {
    let of = |resources: Option<&ResourceRequirements>| {
        amounts(resources.and_then(|resources| resources.requests.as_ref()))
    };
    let Some(spec) = &pod.spec else {
        return Amounts::new();
    };
    let is_sidecar = |container: &Container| container.restart_policy.as_deref() == Some("Always");
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &of(container.resources.as_ref()));
    }
    let mut sidecars = Amounts::new();
    let mut start = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container.resources.as_ref());
        if is_sidecar(container) {
            add(&mut sidecars, &needed);
            raise(&mut start, &sidecars);
        } else {
            add(&mut needed, &sidecars);
            raise(&mut start, &needed);
        }
    }
    add(&mut total, &sidecars);
    raise(&mut total, &start);
    raise(&mut total, &of(spec.resources.as_ref()));
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total.insert("pods".to_owned(), 1000);
    total
}

/// What a node offers to pods.
pub(super) fn allocatable(node: &Node) -> Amounts {
    let status = node.status.as_ref();
    let mut offered = amounts(status.and_then(|status| status.allocatable.as_ref()));
    offered.entry("pods".to_owned()).or_insert(DEFAULT_PODS);
    offered
}

/// What these pods occupy together.
pub(super) fn occupied<'a>(pods: impl Iterator<Item = &'a Pod>) -> Amounts {
    let mut total = Amounts::new();
    for pod in pods {
        add(&mut total, &requests(pod));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_in_every_notation() {
        let table = [
            ("1", Some(1000)),
            ("100m", Some(100)),
            ("0.5", Some(500)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("128Mi", Some(134_217_728_000)),
            ("2k", Some(2_000_000)),
            ("1e3", Some(1_000_000)),
            ("5E-1", Some(500)),
            ("3E", Some(3_000_000_000_000_000_000_000)),
            ("1n", Some(1)),
            ("2500u", Some(3)),
            ("-1", Some(-1000)),
            ("", None),
            ("ten", None),
            ("1Qi", None),
        ];
        for (text, wanted) in table {
            assert_eq!(parse(&Quantity(text.to_owned())), wanted, "{text:?}");
        }
    }

    #[test]
    fn init_containers_count_by_their_maximum_and_sidecars_by_their_sum() {
        let container = |cpu: &str, policy: Option<&str>| json!({"name": "c", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {},
            "spec": {
                "containers": [container("100m", None), container("200m", None)],
                "initContainers": [container("1", None), container("50m", Some("Always")),
                                   container("700m", None)],
                "overhead": {"cpu": "10m"},
            },
        }))
        .unwrap();
        let wanted = [("cpu", 1010), ("pods", 1000)];
        assert_eq!(
            requests(&pod),
            wanted
                .map(|(name, amount)| (name.to_owned(), amount))
                .into()
        );
    }
}
