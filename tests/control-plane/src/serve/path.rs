//! What a path means.

use crate::status::ApiError;

/// A path below `/api/v1` or `/apis/GROUP/VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiPath {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) resource: Option<ResourcePath>,
}

/// A collection, an object, or a subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResourcePath {
    pub(super) namespace: Option<String>,
    pub(super) plural: String,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

/// Decodes percent escapes; `None` when they are broken or the text is not UTF-8.
fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

/// Reads a path of the API; `None` when it is none.
///
/// # Errors
/// 400 for broken percent escapes.
pub(super) fn parse(path: &str) -> Result<Option<ApiPath>, ApiError> {
    let segments: Option<Vec<String>> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(decode)
        .collect();
    let segments =
        segments.ok_or_else(|| ApiError::bad_request("the path has broken percent escapes"))?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match segments.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Ok(None),
    };
    let resource = match rest {
        [] => None,
        rest => match resource(rest) {
            Some(resource) => Some(resource),
            None => return Ok(None),
        },
    };
    Ok(Some(ApiPath {
        group: group.to_owned(),
        version: version.to_owned(),
        resource,
    }))
}

fn resource(rest: &[&str]) -> Option<ResourcePath> {
    let text = |text: &str| Some(text.to_owned());
    let (namespace, rest) = match rest {
        // `namespaces/NAME/status` is a subresource, `namespaces/NAME/pods` a collection.
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (text(namespace), rest),
        rest => (None, rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (plural, None, None),
        [plural, name] => (plural, text(name), None),
        [plural, name, subresource] => (plural, text(name), text(subresource)),
        _ => return None,
    };
    Some(ResourcePath {
        namespace,
        plural: (*plural).to_owned(),
        name,
        subresource,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> String {
        let Some(path) = parse(path).unwrap() else {
            return "-".into();
        };
        let resource = path.resource.map(|r| {
            let or = |part: Option<String>| part.unwrap_or_else(|| "-".into());
            format!(
                " {} {} {} {}",
                or(r.namespace),
                r.plural,
                or(r.name),
                or(r.subresource)
            )
        });
        format!(
            "{}/{}{}",
            path.group,
            path.version,
            resource.unwrap_or_default()
        )
    }

    #[test]
    fn paths() {
        for (path, meaning) in [
            ("/api/v1", "/v1"),
            ("/apis/apps/v1/", "apps/v1"),
            ("/api/v1/namespaces", "/v1 - namespaces - -"),
            ("/api/v1/namespaces/a", "/v1 - namespaces a -"),
            (
                "/api/v1/namespaces/a/finalize",
                "/v1 - namespaces a finalize",
            ),
            ("/api/v1/namespaces/a/pods", "/v1 a pods - -"),
            ("/api/v1/namespaces/a/pods/b/status", "/v1 a pods b status"),
            ("/api/v1/nodes/n", "/v1 - nodes n -"),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "rbac.authorization.k8s.io/v1 - clusterroles system:node -",
            ),
            ("/api/v1/a/b/c/d", "-"),
            ("/metrics", "-"),
        ] {
            assert_eq!(shown(path), meaning, "{path}");
        }
        assert!(parse("/api/v1/pods/%zz").is_err());
    }
}
