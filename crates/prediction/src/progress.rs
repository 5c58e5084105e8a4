//! Progress as a line of tqdm: ` 40%|████      | 20/50 [00:31<00:47,  1.57s/it]`.
//!
//! Replicate's clients parse the percentage and the counts, so the format is part of the contract.

/// Cells of the bar.
const CELLS: u64 = 10;
/// Eighths of a cell.
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];

/// The line after `step` of `of` steps and `seconds` of work, without a line break.
pub(crate) fn line(step: u32, of: u32, seconds: f64) -> String {
    let (done, all) = (u64::from(step.min(of)), u64::from(of.max(1)));
    let percent = done * 100 / all;
    let eighths = done * CELLS * 8 / all;
    let mut bar: String = "█".repeat((eighths / 8) as usize);
    if eighths < CELLS * 8 {
        bar.push(EIGHTHS[(eighths % 8) as usize]);
    }
    let rest = " ".repeat(CELLS as usize - bar.chars().count());
    let elapsed = clock(seconds);
    if done == 0 || seconds <= 0.0 {
        return format!("{percent:3}%|{bar}{rest}| {done}/{all} [{elapsed}<?, ?it/s]");
    }
    let pace = seconds / done as f64;
    let left = clock(pace * (all - done) as f64);
    let rate = if pace > 1.0 { format!("{pace:5.2}s/it") } else { format!("{:5.2}it/s", 1.0 / pace) };
    format!("{percent:3}%|{bar}{rest}| {done}/{all} [{elapsed}<{left}, {rate}]")
}

/// `mm:ss`, or `h:mm:ss` from an hour on.
fn clock(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes:02}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn the_shape_is_that_of_tqdm() {
        assert_eq!(line(20, 50, 31.4), " 40%|████      | 20/50 [00:31<00:47,  1.57s/it]");
        assert_eq!(line(50, 50, 5.0), "100%|██████████| 50/50 [00:05<00:00, 10.00it/s]");
        assert_eq!(line(0, 50, 0.0), "  0%|          | 0/50 [00:00<?, ?it/s]");
        assert_eq!(line(1, 3, 4000.0), " 33%|███▎      | 1/3 [1:06:40<2:13:20, 4000.00s/it]");
    }

    #[test]
    fn every_bar_is_ten_cells_wide() {
        for of in 1..=200 {
            for step in 0..=of {
                let line = line(step, of, f64::from(step));
                assert_eq!(line.split('|').nth(1).map(|bar| bar.chars().count()), Some(10), "{line}");
            }
        }
    }
}
