//! Tables and numbers in Markdown.

use std::fmt::Write;

/// As many digits as mean something: three, in groups of three.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let plain = format!("{value:.digits$}");
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        let left = whole.len() - index;
        if left % 3 == 0 && grouped.ends_with(|before: char| before.is_ascii_digit()) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// A count: no digits behind the point where it is whole.
pub(super) fn count(value: f64) -> String {
    if value.fract() == 0.0 {
        number(value)
            .trim_end_matches(".00")
            .trim_end_matches(".0")
            .to_owned()
    } else {
        number(value)
    }
}

/// A multiple, with two digits that mean something.
pub(super) fn times(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 9.95 => 0,
        size if size >= 0.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$} ×")
}

/// Foreign words, such that Markdown leaves them alone, on one line.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        if character.is_control() {
            out.push(' ');
            continue;
        }
        if "\\`*_[]<>|#~&$".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

/// A table: the first column to the left, the others to the right.
#[derive(Debug, Default)]
pub(super) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(header: impl IntoIterator<Item = String>) -> Self {
        Self {
            header: header.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        let mut line = |cells: &[String]| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "| {} |", cells.join(" | "));
        };
        line(&self.header);
        let rules = (0..self.header.len()).map(|column| if column == 0 { "---" } else { "---:" });
        line(&rules.map(ToOwned::to_owned).collect::<Vec<_>>());
        self.rows.iter().for_each(|row| line(row));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_mean_something() {
        let shown = [0.0, 0.056, 1.234, 12.34, 99.96, 123.4, 1234.0, 1_234_567.0];
        assert_eq!(
            shown.map(number),
            [
                "0",
                "0.06",
                "1.23",
                "12.3",
                "100",
                "123",
                "1,234",
                "1,234,567"
            ]
        );
        assert_eq!(number(-1234.0), "-1,234");
        assert_eq!([3.0, 12.0, 1.5].map(count), ["3", "12", "1.50"]);
        assert_eq!(
            [0.231, 1.0, 4.56, 12.3].map(times),
            ["0.23 ×", "1.0 ×", "4.6 ×", "12 ×"]
        );
    }

    #[test]
    fn foreign_words_stay_in_their_cell() {
        assert_eq!(escaped("a|b\n<c> *d*"), "a\\|b \\<c\\> \\*d\\*");
    }
}
