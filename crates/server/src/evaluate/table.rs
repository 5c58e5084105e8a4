//! The report as a table: a row for each picture, then mean and deviation of each size and stride, and of all.

use std::fmt::Write as _;

use protocol::Net;

use super::report::{Each, Evaluated, FIGURES, Report};
use super::statistic::Statistic;

/// The channels of VGG16, for which LPIPS was made.
const VGG16: [u32; 5] = [64, 128, 256, 512, 512];

/// The table, and what has to be known to read it.
pub(super) fn print(report: &Report) -> String {
    let shown: Vec<usize> = (0..FIGURES.len()).filter(|&i| report.all.all()[i].is_some()).collect();
    let heads = shown.iter().map(|&i| FIGURES[i].1.to_owned());
    let mut rows: Vec<Vec<String>> =
        vec![["picture", "size", "stride"].map(str::to_owned).into_iter().chain(heads).collect()];
    for picture in &report.pictures {
        let figures = picture.figures.all();
        let cells = shown.iter().map(|&i| figures[i].map_or_else(|| "-".to_owned(), |value| format!("{value:.3}")));
        rows.push(kind(picture.file.display().to_string(), picture.width, picture.height, picture.stride, cells));
    }
    let several = report.groups.len() > 1;
    let statistics = |each: &Each<Statistic>| {
        let all = each.all();
        shown.iter().map(|&i| all[i].map_or_else(|| "-".to_owned(), cell)).collect::<Vec<_>>()
    };
    for group in report.groups.iter().filter(|_| several) {
        rows.push(kind("mean".to_owned(), group.width, group.height, group.stride, statistics(&group.figures)));
    }
    let of = format!("mean of {}", report.pictures.len());
    rows.push([of, String::new(), String::new()].into_iter().chain(statistics(&report.all)).collect());
    let mut text = aligned(&rows);
    for Evaluated { file, notes, .. } in &report.pictures {
        for note in notes {
            let _ = writeln!(text, "`{}` {note}", file.display());
        }
    }
    let _ = writeln!(text, "{}", named(&report.net));
    text
}

fn kind(
    name: String,
    width: u32,
    height: u32,
    stride: Option<u32>,
    cells: impl IntoIterator<Item = String>,
) -> Vec<String> {
    let stride = stride.map_or_else(|| "-".to_owned(), |stride| stride.to_string());
    [name, format!("{width}x{height}"), stride].into_iter().chain(cells).collect()
}

fn cell(statistic: Statistic) -> String {
    match statistic.deviation {
        Some(deviation) => format!("{:.3} ±{deviation:.3}", statistic.mean),
        None => format!("{:.3}", statistic.mean),
    }
}

/// Cells below each other: the first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if i == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Which network it was.
pub(super) fn named(net: &Net) -> String {
    let Net { model, channels, version } = net;
    let hash = version.get(..10).unwrap_or(version);
    if channels[..] == VGG16 {
        return format!("perceptual network: VGG16 of `{model}` ({hash})");
    }
    let channels: Vec<String> = channels.iter().map(ToString::to_string).collect();
    format!(
        "perceptual network: that of `{model}` ({hash}), {} channels; its Intra-LPIPS cannot be compared with that of \
         VGG16",
        channels.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::files::Problem;

    fn picture(file: &str, width: u32, stride: Option<u32>, figures: [Option<f64>; 4]) -> Evaluated {
        let [seam, borders, row_borders, intra_lpips] = figures;
        let figures = Each { seam, borders, row_borders, intra_lpips };
        let notes = if stride.is_none() { vec!["has no stride".to_owned()] } else { Vec::new() };
        Evaluated { file: file.into(), width, height: 512, stride, figures, notes }
    }

    #[test]
    fn sizes_and_strides_have_means_of_their_own() {
        let pictures = vec![
            picture("a.png", 2048, Some(16), [Some(20.0), Some(1.5), None, Some(0.25)]),
            picture("b.png", 2048, Some(16), [Some(22.0), Some(1.7), None, Some(0.35)]),
            picture("long name.png", 1024, None, [Some(1.0), None, None, Some(0.12345)]),
        ];
        let net =
            Net { model: "demo".to_owned(), channels: vec![8, 16, 32, 64, 64], version: "0123456789ab".to_owned() };
        let report = Report::new(net, pictures, vec![Problem::new("c.png".as_ref(), "is not a PNG")]);
        assert_eq!(
            print(&report),
            "picture            size  stride            seam       borders   Intra-LPIPS\n\
             a.png          2048x512      16          20.000         1.500         0.250\n\
             b.png          2048x512      16          22.000         1.700         0.350\n\
             long name.png  1024x512       -           1.000             -         0.123\n\
             mean           1024x512       -           1.000             -         0.123\n\
             mean           2048x512      16   21.000 ±1.414  1.600 ±0.141  0.300 ±0.071\n\
             mean of 3                        14.333 ±11.590  1.600 ±0.141  0.241 ±0.114\n\
             `long name.png` has no stride\n\
             perceptual network: that of `demo` (0123456789), 8, 16, 32, 64, 64 channels; its Intra-LPIPS cannot be \
             compared with that of VGG16\n"
        );
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["pictures"][0]["seam"], 20.0);
        assert_eq!(json["groups"][1]["borders"]["pictures"], 2);
        assert_eq!(json["all"]["borders"]["mean"], 1.6);
        assert_eq!(json["problems"][0]["file"], "c.png");
    }
}
