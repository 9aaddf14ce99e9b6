//! Tables that fit the terminal.

use std::fmt;

use comfy_table::{ContentArrangement, presets};

/// A table without lines, its columns as wide as the terminal allows.
pub struct Table(comfy_table::Table);

impl Table {
    /// A table with these column heads.
    pub fn new(head: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        // Where output is no terminal, the width is what the environment says, or unlimited.
        if let Some(columns) = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()) {
            table.set_width(columns);
        }
        table.set_header(head.iter().map(|text| text.to_uppercase()));
        Self(table)
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.add_row(cells.into_iter().collect::<Vec<_>>());
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.0.row_count() == 0
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.0.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `1.5 s`, `2 min`, `3 h`: as exact as a reader needs.
pub fn age(seconds: f64) -> String {
    match seconds {
        s if s < 0.0 => "passed".to_owned(),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}
