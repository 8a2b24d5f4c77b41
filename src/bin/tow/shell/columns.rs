//! Names side by side, as many as a terminal is wide, each column read downwards.

/// Blanks between two columns.
const GAP: usize = 2;

/// The lines in which the names stand, each with its end.
pub(super) fn columns(names: &[String], width: usize) -> String {
    // Wide characters are not known here: with them the columns are a little crooked.
    let lengths: Vec<usize> = names.iter().map(|name| name.chars().count()).collect();
    let column = lengths.iter().max().map_or(1, |longest| longest + GAP);
    // The last one needs no gap.
    let across = ((width + GAP) / column).max(1);
    let rows = names.len().div_ceil(across);
    let mut text = String::new();
    for row in 0..rows {
        let mut blanks = 0;
        for (name, length) in names.iter().zip(&lengths).skip(row).step_by(rows) {
            text.push_str(&" ".repeat(blanks));
            text.push_str(name);
            blanks = column - length;
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str], width: usize) -> String {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        columns(&names, width)
    }

    #[test]
    fn names_stand_in_columns_that_are_read_downwards() {
        assert_eq!(of(&[], 80), "");
        assert_eq!(of(&["a", "bb", "c"], 80), "a   bb  c\n");
        assert_eq!(of(&["a", "bb", "c"], 9), "a   c\nbb\n");
        assert_eq!(of(&["a", "bb", "c"], 10), "a   bb  c\n");
        assert_eq!(of(&["a", "b", "c", "d", "e"], 5), "a  d\nb  e\nc\n");
        assert_eq!(of(&["a", "b"], 0), "a\nb\n");
        assert_eq!(of(&["a long name", "b"], 5), "a long name\nb\n");
    }
}
