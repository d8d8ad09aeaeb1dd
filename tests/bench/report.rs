//! The one table that the bench prints.

/// One line of the table; what does not apply is `None` or empty.
#[derive(Clone, Default)]
pub struct Row {
    /// The case, and what of it.
    pub what: String,
    /// Unit of the two figures.
    pub unit: &'static str,
    /// Median of the program that only receives.
    pub floor: Option<f64>,
    /// Median of the program measured.
    pub measured: Option<f64>,
    /// Median of the ratios of each pair of runs.
    pub ratio: Option<f64>,
    /// What the project sets itself.
    pub aim: &'static str,
    /// Datagrams the kernel dropped on the way to the program, over all runs.
    pub drops: Option<u64>,
    /// Anything else worth knowing.
    pub note: String,
}

impl Row {
    /// A row with one figure.
    pub fn figure(what: &str, unit: &'static str, measured: f64, aim: &'static str) -> Row {
        Row {
            what: what.into(),
            unit,
            measured: Some(measured),
            aim,
            ..Row::default()
        }
    }

    /// A row that says why there is no figure.
    pub fn skipped(what: &str, why: &str) -> Row {
        Row {
            what: what.into(),
            note: format!("skipped: {why}"),
            ..Row::default()
        }
    }
}

/// The middle of the values; NaN when there is none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Prints the rows as a Markdown table, so that it can go into the README as it is.
pub fn print(rows: &[Row]) {
    let figure = |value: Option<f64>| match value {
        None => String::new(),
        Some(v) if v == 0.0 || v.abs() >= 1_000.0 => format!("{v:.0}"),
        Some(v) if v.abs() >= 10.0 => format!("{v:.1}"),
        Some(v) if v.abs() >= 1.0 => format!("{v:.2}"),
        Some(v) => format!("{v:.4}"),
    };
    let head = [
        "case", "unit", "floor", "measured", "ratio", "aim", "drops", "note",
    ];
    let mut table = vec![head.map(String::from)];
    table.extend(rows.iter().map(|row| {
        [
            row.what.clone(),
            row.unit.into(),
            figure(row.floor),
            figure(row.measured),
            row.ratio.map_or(String::new(), |r| format!("{r:.2}")),
            row.aim.into(),
            row.drops.map_or(String::new(), |d| d.to_string()),
            row.note.clone(),
        ]
    }));
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            table
                .iter()
                .map(|cells| cells[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for (at, cells) in table.iter().enumerate() {
        let cells = cells
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!(" {cell:width$} |"));
        println!("|{}", cells.collect::<String>());
        if at == 0 {
            println!(
                "|{}",
                widths
                    .iter()
                    .map(|w| format!("{}|", "-".repeat(w + 2)))
                    .collect::<String>()
            );
        }
    }
}
