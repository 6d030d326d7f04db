//! One listing, three forms.

use std::io::Write as _;

use anyhow::Context as _;
use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For machines; field names are stable
    Json,
    /// For machines; field names are stable
    Yaml,
}

/// Something that prints as a table for people; as data it is what it serialises to.
pub(super) trait Listing: Serialize {
    /// The text for people, ending in a line break.
    fn text(&self) -> String;
}

/// The text of a listing.
pub(super) fn render(format: Format, listing: &impl Listing) -> anyhow::Result<String> {
    Ok(match format {
        Format::Table => listing.text(),
        Format::Json => serde_json::to_string_pretty(listing).context("cannot write JSON")? + "\n",
        Format::Yaml => serde_saphyr::to_string(listing).context("cannot write YAML")?,
    })
}

pub(super) fn print(format: Format, listing: &impl Listing) -> anyhow::Result<()> {
    let text = render(format, listing)?;
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot print"),
    }
}

/// A table with a head, or one line when it has no rows.
pub(super) fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>, empty: &str) -> String {
    if rows.is_empty() {
        return format!("{empty}\n");
    }
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(head);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}
