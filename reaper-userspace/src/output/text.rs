//! Lines that fit a terminal: styled pieces of text, escaped, cut or wrapped on the boundaries of characters by what they
//! take on the screen.

use std::borrow::Cow;
use std::io::{self, Write};

use anstyle::Style;
use unicode_width::UnicodeWidthChar as _;

use super::{OutputFormat, escape, terminal_width};

/// Where a command prints, and how.
pub struct Terminal<'a> {
    /// `--output`.
    pub format: OutputFormat,
    /// Whether to colour.
    pub color: bool,
    /// Columns; `None` is no limit.
    pub width: Option<usize>,
    /// Data.
    pub out: &'a mut dyn Write,
    /// Everything else.
    pub err: &'a mut dyn Write,
}

impl<'a> Terminal<'a> {
    /// Data to `out`, which ends at stdout; everything else to stderr.
    pub fn stdout(format: OutputFormat, color: bool, out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self { format, color, width: terminal_width(), out, err }
    }

    /// Whether objects are wanted, and not text for people.
    pub fn is_json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    /// Prints a line, cut to the width.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn line(&mut self, text: &Text) -> io::Result<()> {
        let line = text.render(self.color, self.width);
        writeln!(self.out, "{line}")
    }

    /// Prints a line that is wrapped to the width, later lines indented.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn paragraph(&mut self, head: (&str, Style), indent: usize, text: &str) -> io::Result<()> {
        let room = self.width.map(|w| w.saturating_sub(indent));
        let (head, style) = head;
        for (n, line) in wrap(&escape(text), room).into_iter().enumerate() {
            let head = if n == 0 { head } else { "" };
            let mut whole = Text::default();
            whole.add(style, &pad(head, indent)).add(Style::new(), &line);
            self.line(&whole)?;
        }
        Ok(())
    }
}

/// A line of pieces, each with its style. What is added is escaped.
#[derive(Clone, Debug, Default)]
pub struct Text(Vec<(Style, String)>);

impl Text {
    /// Adds a piece.
    pub fn add(&mut self, style: Style, piece: &str) -> &mut Self {
        self.0.push((style, escape(piece).into_owned()));
        self
    }

    /// The line, cut to a width, without its newline.
    pub fn render(&self, color: bool, width: Option<usize>) -> String {
        let all: usize = self.0.iter().map(|(_, piece)| width_of(piece)).sum();
        let cut = width.filter(|&w| all > w);
        // The mark that something is missing takes a column.
        let mut room = cut.map_or(usize::MAX, |w| w.saturating_sub(1));
        let mut line = String::new();
        for (style, piece) in &self.0 {
            let (taken, rest) = split(piece, room);
            paint(&mut line, *style, taken, color);
            room -= width_of(taken);
            if !rest.is_empty() {
                break;
            }
        }
        line.truncate(line.trim_end_matches(' ').len());
        if cut.is_some_and(|w| w > 0) {
            line.push('…');
        }
        line
    }
}

fn paint(line: &mut String, style: Style, text: &str, color: bool) {
    if color && style != Style::new() && !text.is_empty() {
        line.push_str(&format!("{style}{text}{style:#}"));
    } else {
        line.push_str(text);
    }
}

/// What a text takes on the screen, columns. Wide characters take two.
pub fn width_of(text: &str) -> usize {
    text.chars().map(width_of_char).sum()
}

fn width_of_char(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// A text cut to `width` columns; the last of them shows that something is missing.
pub fn fit(text: &str, width: usize) -> Cow<'_, str> {
    if width_of(text) <= width {
        return Cow::Borrowed(text);
    }
    match width {
        0 => Cow::Borrowed(""),
        _ => Cow::Owned(format!("{}…", split(text, width - 1).0)),
    }
}

/// A text filled up with spaces to `width` columns.
pub fn pad(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(width_of(text));
    format!("{text}{:missing$}", "")
}

/// The longest beginning that fits, and the rest.
fn split(text: &str, room: usize) -> (&str, &str) {
    let mut taken = 0;
    for (at, c) in text.char_indices() {
        taken += width_of_char(c);
        if taken > room {
            return text.split_at(at);
        }
    }
    (text, "")
}

/// A text in lines of `width` columns at most, broken at spaces where there are any. At least one line.
pub fn wrap(text: &str, width: Option<usize>) -> Vec<String> {
    // Narrower than this nothing can be read anyway.
    let Some(width) = width.map(|w| w.max(8)) else { return vec![text.to_owned()] };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word = word;
        while let Some(line) = lines.last_mut() {
            let used = width_of(line);
            let gap = usize::from(used > 0);
            if used + gap + width_of(word) <= width {
                line.extend((gap > 0).then_some(' '));
                line.push_str(word);
                break;
            }
            if used == 0 {
                let (taken, rest) = split(word, width);
                line.push_str(taken);
                word = rest;
            }
            lines.push(String::new());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use anstyle::AnsiColor;

    #[test]
    fn cut_on_the_boundaries_of_characters() {
        assert_eq!(fit("horizon", 7), "horizon");
        assert_eq!(fit("horizon", 6), "horiz…");
        assert_eq!(fit("horizon", 1), "…");
        assert_eq!(fit("horizon", 0), "");
        // Two columns each: half a character is not shown.
        assert_eq!(fit("作業作業", 8), "作業作業");
        assert_eq!(fit("作業作業", 7), "作業作…");
        assert_eq!(fit("作業作業", 6), "作業…");
        assert_eq!(pad("作業", 6), "作業  ");
    }

    #[test]
    fn styled_lines_are_cut_as_one() {
        let red = AnsiColor::Red.on_default();
        let mut text = Text::default();
        text.add(red, "ab").add(Style::new(), "cd\x1b[2J");
        assert_eq!(text.render(false, None), r"abcd\x1b[2J");
        assert_eq!(text.render(false, Some(4)), "abc…");
        assert_eq!(text.render(true, Some(2)), "\x1b[31ma\x1b[0m…");
        assert_eq!(text.render(true, Some(0)), "");
    }

    #[test]
    fn wrapped_at_spaces_and_within_long_words() {
        assert_eq!(wrap("one two three four", Some(9)), ["one two", "three", "four"]);
        assert_eq!(wrap("abcdefghijkl mn", Some(8)), ["abcdefgh", "ijkl mn"]);
        assert_eq!(wrap("one two", None), ["one two"]);
        assert_eq!(wrap("", Some(20)), [""]);
    }
}
