//! `syncdiffusion evaluate`, with a worker that answers with the first pixel of a picture.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// Writes a PNG of one colour, as this program would write it if there is a stride.
fn picture(path: &Path, (width, height): (u32, u32), colour: [u8; 3], stride: Option<u32>) {
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, width, height);
    encoder.set_color(png::ColorType::Rgb);
    if let Some(stride) = stride {
        let input = json!({"prompt": "a", "width": width, "height": height, "stride": stride, "loop_closure": false});
        encoder.add_text_chunk("prediction".to_owned(), input.to_string()).unwrap();
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&colour.repeat((width * height) as usize)).unwrap();
    writer.finish().unwrap();
    std::fs::write(path, png).unwrap();
}

fn evaluate(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(tests::binary());
    command.arg("evaluate").arg("--worker").arg(tests::stand_in()).args(arguments).current_dir(dir);
    command.output().unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn pictures_of_a_folder_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    picture(&dir.path().join("a.png"), (1024, 512), [150, 110, 30], Some(16));
    picture(&dir.path().join("b.png"), (1024, 512), [170, 130, 50], Some(16));
    picture(&dir.path().join("c.png"), (2048, 512), [100, 90, 20], None);
    std::fs::write(dir.path().join("notes.txt"), "not a picture").unwrap();
    let output = evaluate(dir.path(), &[".", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["net"], json!({"model": "demo", "channels": [1, 2, 3, 4, 5], "version": "5a4d".repeat(16)}));
    let [a, _, c] = &report["pictures"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!((&a["file"], &a["width"], &a["stride"]), (&json!("./a.png"), &json!(1024), &json!(16)));
    assert_eq!((&a["seam"], &a["borders"], &a["intra_lpips"]), (&json!(1.5), &json!(1.1), &json!(0.3)));
    assert_eq!((&c["stride"], &c["borders"]), (&Value::Null, &Value::Null));
    assert!(c["notes"][0].as_str().unwrap().contains("`--stride`"), "{c}");
    let [first, second] = &report["groups"].as_array().unwrap()[..] else { panic!("{report}") };
    assert_eq!((&first["width"], &first["seam"]["pictures"]), (&json!(1024), &json!(2)));
    assert_eq!((&first["seam"]["mean"], &second["seam"]["deviation"]), (&json!(1.6), &Value::Null));
    assert_eq!((&report["all"]["seam"]["pictures"], &report["all"]["borders"]["pictures"]), (&json!(3), &json!(2)));
    assert_eq!(report["problems"], json!([]));

    let output = evaluate(dir.path(), &["c.png", "--stride", "32"]);
    let table = said(&output.stdout);
    assert!(output.status.success() && table.contains("c.png      2048x512      32  1.000    0.900"), "{table}");
    assert!(table.contains("perceptual network: that of `demo` (5a4d5a4d5a)"), "{table}");
}

#[test]
fn what_cannot_be_evaluated_is_said() {
    let dir = tempfile::tempdir().unwrap();
    picture(&dir.path().join("good.png"), (1024, 512), [150, 110, 30], Some(16));
    picture(&dir.path().join("bad.png"), (64, 64), [255, 0, 0], None);
    std::fs::write(dir.path().join("photo.jpg"), b"\xff\xd8\xff\xe0").unwrap();
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let output = evaluate(dir.path(), &["good.png", "bad.png", "photo.jpg", "empty", "none.png"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output.stdout).contains("good.png"), "{output:?}");
    let errors = said(&output.stderr);
    for sentence in [
        "`bad.png` cannot be evaluated: the stand-in was told to fail",
        "`photo.jpg` is a damaged JPEG",
        "`empty` is a folder without pictures",
        "`none.png` cannot be read: ",
    ] {
        assert!(errors.contains(sentence), "{errors}");
    }
    let output = evaluate(dir.path(), &["empty"]);
    assert!(!output.status.success() && said(&output.stderr).contains("there is nothing to evaluate"), "{output:?}");
    let output = evaluate(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
