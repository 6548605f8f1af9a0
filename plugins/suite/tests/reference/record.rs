//! The record of what both sides do: `docs/plugins/reference.md`, one section per case, every line
//! that is not common marked `-` (the reference) or `+` (Towline) and followed by the reason.

use std::path::PathBuf;
use std::sync::Mutex;

use crate::node::Node;
use crate::observe::Seen;
use crate::world::{Maker, world};

/// Environment variable that has the record written anew instead of compared.
const WRITE: &str = "TOWLINE_WRITE_RECORD";

/// One black-box case, run by both sides.
pub(crate) struct Case {
    /// Its number in the project's list of black-box cases, with a letter where one has parts.
    pub(crate) number: &'static str,
    pub(crate) title: &'static str,
    pub(crate) run: fn(&Node, &mut Seen),
    /// Why ours is right, for every place where the two differ.
    pub(crate) why: &'static [Why],
}

/// A difference is recognised by a part of one of its lines.
pub(crate) type Why = (&'static str, &'static str);

/// Runs every case by both sides and compares what is seen with the record.
pub(crate) fn compare(cases: &[Case]) {
    let mut failures = vec![];
    for case in cases {
        let of = |maker| {
            world(maker, |node| {
                let mut seen = Seen::default();
                (case.run)(node, &mut seen);
                seen.0
            })
        };
        let (reference, ours) = (of(Maker::Reference), of(Maker::Ours));
        match render(case, &reference, &ours) {
            Ok(text) => failures.extend(check(case, &text)),
            Err(message) => failures.push(message),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// The numbers that the record has a section for.
pub(crate) fn recorded() -> Vec<String> {
    let text = std::fs::read_to_string(path()).unwrap_or_default();
    let headings = text.lines().filter_map(|line| line.strip_prefix("## "));
    headings
        .map(|heading| heading.split(". ").next().unwrap().to_owned())
        .collect()
}

fn path() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/plugins/reference.md"
    ))
}

/// The section of one case.
fn render(case: &Case, reference: &[String], ours: &[String]) -> Result<String, String> {
    let mut text = format!("## {}. {}\n\n```diff\n", case.number, case.title);
    let mut used = vec![false; case.why.len()];
    let (mut hunk, mut unexplained): (Vec<String>, Vec<String>) = (vec![], vec![]);
    for line in merged(reference, ours)
        .iter()
        .map(String::as_str)
        .chain([" "])
    {
        if !line.starts_with(' ') {
            hunk.push(line.to_owned());
            continue;
        }
        if !hunk.is_empty() {
            text += &(hunk.join("\n") + "\n");
            let mut reasons: Vec<&str> = vec![];
            for (at, (part, reason)) in case.why.iter().enumerate() {
                if hunk.iter().any(|line| line.contains(part)) {
                    used[at] = true;
                    reasons.push(reason);
                }
            }
            if reasons.is_empty() {
                unexplained.push(hunk.join("\n"));
            }
            for reason in reasons {
                text += &format!("! {reason}\n");
            }
            hunk.clear();
        }
        if line != " " {
            text += &format!("{line}\n");
        }
    }
    if !unexplained.is_empty() {
        let shown = unexplained.join("\n\n");
        return Err(format!("case {}: unexplained:\n{shown}", case.number));
    }
    if let Some(at) = used.iter().position(|used| !used) {
        let (part, reason) = case.why[at];
        return Err(format!(
            "case {}: nothing differs in {part:?} any more ({reason})",
            case.number
        ));
    }
    Ok(text + "```\n")
}

/// Both as one text: common lines, and between them first the reference's, then ours.
fn merged(reference: &[String], ours: &[String]) -> Vec<String> {
    let (rows, columns) = (reference.len(), ours.len());
    // Length of the longest common part of what follows each pair of positions.
    let mut common = vec![vec![0usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row][column] = if reference[row] == ours[column] {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    let (mut row, mut column, mut lines) = (0, 0, vec![]);
    while row < rows || column < columns {
        let both = row < rows && column < columns;
        if both && reference[row] == ours[column] {
            lines.push(format!("  {}", ours[column]));
            row += 1;
            column += 1;
        } else if column == columns
            || (row < rows && common[row + 1][column] >= common[row][column + 1])
        {
            lines.push(format!("- {}", reference[row]));
            row += 1;
        } else {
            lines.push(format!("+ {}", ours[column]));
            column += 1;
        }
    }
    lines
}

/// Compares a section with the record, or replaces it there. What is wrong is returned.
fn check(case: &Case, section: &str) -> Option<String> {
    static ONE_WRITER: Mutex<()> = Mutex::new(());
    let _guard = ONE_WRITER.lock().unwrap();
    let text = std::fs::read_to_string(path()).expect("the record exists");
    let heading = format!("## {}. ", case.number);
    let mut sections: Vec<String> = text.split("\n## ").map(str::to_owned).collect();
    for section in sections.iter_mut().skip(1) {
        *section = format!("## {}\n", section.trim_end());
    }
    let found = sections.iter().position(|one| one.starts_with(&heading));
    let recorded = found.map(|at| sections[at].as_str()).unwrap_or_default();
    if recorded == section {
        return None;
    }
    if std::env::var_os(WRITE).is_none() {
        let was: Vec<String> = recorded.lines().map(str::to_owned).collect();
        let is: Vec<String> = section.lines().map(str::to_owned).collect();
        let changed: Vec<String> = merged(&was, &is)
            .into_iter()
            .filter(|line| !line.starts_with("  "))
            .collect();
        return Some(format!(
            "case {} is not as recorded (- recorded, + seen):\n{}\nIf that is right: {WRITE}=1",
            case.number,
            changed.join("\n")
        ));
    }
    match found {
        Some(at) => section.clone_into(&mut sections[at]),
        None => sections.push(section.to_owned()),
    }
    let introduction = sections.remove(0);
    sections.sort_by_key(|one| order(one));
    sections.insert(0, format!("{}\n", introduction.trim_end()));
    std::fs::write(path(), sections.join("\n")).unwrap();
    None
}

/// Cases are in the order of their numbers.
fn order(section: &str) -> (u32, String) {
    let number = section.trim_start_matches("## ");
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
    (number[..end].parse().unwrap(), number[end..].to_owned())
}
