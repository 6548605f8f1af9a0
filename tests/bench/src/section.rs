//! The page of benchmarks: each benchmark replaces its own section and leaves the rest alone.

use std::path::Path;

use anyhow::Context;

/// Writes `text` as section `name` of the page at `path`, in place of what the section held; at
/// the end of the page if it has no such section.
///
/// # Errors
/// When the page cannot be read or written, or the section begins and does not end.
pub(crate) fn write(path: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let shown = path.display();
    let page = std::fs::read_to_string(path).with_context(|| format!("reading {shown}"))?;
    let page = replaced(&page, name, text).with_context(|| format!("changing {shown}"))?;
    std::fs::write(path, page).with_context(|| format!("writing {shown}"))
}

fn replaced(page: &str, name: &str, text: &str) -> anyhow::Result<String> {
    let (begin, end) = (
        format!("<!-- begin: {name} -->\n"),
        format!("<!-- end: {name} -->"),
    );
    let section = format!("{begin}\n{}\n\n{end}", text.trim());
    let Some((before, rest)) = page.split_once(&begin) else {
        return Ok(format!("{}\n\n{section}\n", page.trim_end()));
    };
    let (_, after) = rest
        .split_once(&end)
        .with_context(|| format!("section {name} has no end: put {end} after it"))?;
    Ok(format!("{before}{section}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_everything_else_stays() {
        let page = "# Page\n\n<!-- begin: a -->\n\nold\n\n<!-- end: a -->\n\nprose\n";
        let page = replaced(page, "b", "first").unwrap();
        let page = replaced(&page, "a", "new").unwrap();
        assert_eq!(
            page,
            "# Page\n\n<!-- begin: a -->\n\nnew\n\n<!-- end: a -->\n\nprose\n\n\
             <!-- begin: b -->\n\nfirst\n\n<!-- end: b -->\n"
        );
        assert!(replaced("<!-- begin: a -->\nlost", "a", "new").is_err());
    }
}
