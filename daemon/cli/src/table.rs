//! Aligned columns from JSON values.

use serde_json::Value;

/// A column: its heading, and where in a row's value its text is (a JSON pointer).
pub(crate) type Column = (&'static str, &'static str);

/// `rows` with one line each under the headings of `columns`.
pub(crate) fn render(columns: &[Column], rows: &[Value]) -> String {
    let mut cells: Vec<Vec<String>> =
        vec![columns.iter().map(|(head, _)| (*head).to_owned()).collect()];
    for row in rows {
        let of = |(_, pointer): &Column| row.pointer(pointer).map_or_else(dash, cell);
        cells.push(columns.iter().map(of).collect());
    }
    align(&cells)
}

/// One value as the text of a cell.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => dash(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) if text.is_empty() => dash(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => dash(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn dash() -> String {
    "-".to_owned()
}

fn align(cells: &[Vec<String>]) -> String {
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let widths = cells
            .iter()
            .filter_map(|row| row.get(column))
            .map(|text| text.chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in cells {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            json!({ "a": "x", "b": [1, 2], "c": { "d": true } }),
            json!({ "a": "longer", "b": [], "c": null }),
        ];
        let columns = [("A", "/a"), ("B", "/b"), ("D", "/c/d")];
        assert_eq!(
            render(&columns, &rows),
            "A        B     D\nx        1,2   yes\nlonger   -     -\n"
        );
    }

    #[test]
    fn no_rows_is_the_heading_alone() {
        assert_eq!(render(&[("A", "/a")], &[]), "A\n");
    }
}
