//! A terminal's screen as an SVG image: what is there, in the colours that most terminals give.

use std::fmt::Write as _;

use vt100::{Cell, Color, Screen};

/// Pixels of a character.
const WIDTH: f32 = 8.4;
const HEIGHT: f32 = 17.0;
const MARGIN: f32 = 10.0;

const PAPER: &str = "#16181d";
const INK: &str = "#d7dae0";
/// Colours 0 to 15.
const PALETTE: [&str; 16] = [
    "#2b2f37", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d7dae0", "#7f848e",
    "#f08c95", "#b5dd9b", "#f2d59b", "#8bc5f7", "#dba0ea", "#80d0da", "#ffffff",
];

/// How a cell looks.
#[derive(Clone, PartialEq)]
struct Style {
    ink: String,
    paper: Option<String>,
    bold: bool,
}

impl Style {
    fn of(cell: &Cell) -> Self {
        let (mut ink, mut paper) = (colour(cell.fgcolor()), colour(cell.bgcolor()));
        if cell.inverse() {
            (ink, paper) = (
                Some(paper.unwrap_or_else(|| PAPER.to_owned())),
                Some(ink.unwrap_or_else(|| INK.to_owned())),
            );
        }
        Self { ink: ink.unwrap_or_else(|| INK.to_owned()), paper, bold: cell.bold() }
    }
}

fn colour(colour: Color) -> Option<String> {
    match colour {
        Color::Default => None,
        Color::Idx(n @ 0..16) => Some(PALETTE[usize::from(n)].to_owned()),
        // The cube of 6 by 6 by 6 colours, and the greys behind it.
        Color::Idx(n @ 16..232) => {
            let part = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
            let n = n - 16;
            Some(format!("#{:02x}{:02x}{:02x}", part(n / 36), part(n / 6 % 6), part(n % 6)))
        }
        Color::Idx(n) => Some(format!("#{0:02x}{0:02x}{0:02x}", 8 + 10 * (n - 232))),
        Color::Rgb(red, green, blue) => Some(format!("#{red:02x}{green:02x}{blue:02x}")),
    }
}

/// The whole screen.
pub(crate) fn svg(screen: &Screen) -> String {
    let (rows, columns) = screen.size();
    let (width, height) =
        (f32::from(columns) * WIDTH + 2.0 * MARGIN, f32::from(rows) * HEIGHT + 2.0 * MARGIN);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{PAPER}\"/>\n"
    );
    for row in 0..rows {
        let mut column = 0;
        while column < columns {
            let (style, run) = run(screen, row, column);
            let length = u16::try_from(run.chars().count()).unwrap();
            draw(&mut text, &style, &run, (row, column), length);
            column += length.max(1);
        }
    }
    text.push_str("</svg>\n");
    text
}

/// What follows in one style.
fn run(screen: &Screen, row: u16, from: u16) -> (Style, String) {
    let style = |column| screen.cell(row, column).map(Style::of);
    let first = style(from).unwrap();
    let mut text = String::new();
    let mut column = from;
    while style(column).as_ref() == Some(&first) {
        let contents = screen.cell(row, column).map(Cell::contents).unwrap_or_default();
        text.push(contents.chars().next().unwrap_or(' '));
        column += 1;
    }
    (first, text)
}

fn draw(svg: &mut String, style: &Style, run: &str, (row, column): (u16, u16), length: u16) {
    let (x, y) = (MARGIN + f32::from(column) * WIDTH, MARGIN + f32::from(row) * HEIGHT);
    let width = f32::from(length) * WIDTH;
    // A string takes everything.
    if let Some(paper) = &style.paper {
        _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\" fill=\"{paper}\"/>"
        );
    }
    if run.trim().is_empty() {
        return;
    }
    let bold = if style.bold { " font-weight=\"bold\"" } else { "" };
    let escaped = run.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{:.1}\" fill=\"{}\" textLength=\"{width:.1}\" xml:space=\"preserve\"{bold}>{escaped}</text>",
        y + 13.0,
        style.ink
    );
}
