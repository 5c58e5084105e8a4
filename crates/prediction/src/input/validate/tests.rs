//! The words of the real server (transcript 20), the rules of the algorithm, and properties of both.

use proptest::prelude::*;
use protocol::Blend;
use serde_json::json;

use super::*;

fn errors(value: &Value) -> String {
    let errors = parse(value, Some(Geometry::default())).expect_err("the input should be refused");
    serde_json::to_string(&errors.iter().map(Invalid::detail).collect::<Vec<_>>()).unwrap()
}

/// The one error of a field, with a valid prompt.
fn one(field: &str, value: &Value) -> String {
    let found = parse(&json!({"prompt": "a", field: value}), Some(Geometry::default())).expect_err(field);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].field.as_str(), found[0].kind), (field, "value_error"));
    found[0].message.clone()
}

#[test]
fn the_words_are_those_of_cog() {
    let required = r#"[{"loc":["body","input","prompt"],"msg":"Field required","type":"value_error.missing"}]"#;
    assert_eq!(errors(&json!({})), required);
    assert_eq!(errors(&Value::Null), required);
    for (field, value, message) in [
        ("width", json!(100), "100 is less than the minimum of 512"),
        ("width", json!(4000), "4000 is greater than the maximum of 3072"),
        ("width", json!("1024"), r#""1024" is not of type "integer""#),
        ("width", json!(512.5), r#"512.5 is not of type "integer""#),
        ("width", json!(true), r#"true is not of type "integer""#),
        ("guidance_scale", json!(20.5), "20.5 is greater than the maximum of 20"),
        ("guidance_scale", json!(-0.1), "-0.1 is less than the minimum of 0"),
        ("guidance_scale", json!("7"), r#""7" is not of type "number""#),
        ("loop_closure", json!("yes"), r#""yes" is not of type "boolean""#),
        ("loop_closure", json!(1), r#"1 is not of type "boolean""#),
        ("seed", json!(-1), "-1 is less than the minimum of 0"),
        ("seed", Value::Null, r#"null is not of type "integer""#),
        ("num_inference_steps", json!(0), "0 is less than the minimum of 1"),
        ("blend", json!("Smooth"), r#""Smooth" is not one of "even" or "smooth""#),
        ("blend", json!(1), r#"1 is not one of "even" or "smooth""#),
        ("blend", Value::Null, r#"null is not one of "even" or "smooth""#),
        ("preset", json!("slow"), r#""slow" is not one of "default" or "fast""#),
        ("prompts", json!("a"), r#""a" is not of type "array""#),
        ("prompts", json!(["a", 5]), r#"5 in `prompts` is not of type "string""#),
        ("prompts", json!(["a"]), "one text leads nowhere; give 2 to 10 in `prompts`, or this one as `prompt`"),
        ("prompts", json!(vec!["a"; 11]), "`prompts` has more than 10 texts; give 2 to 10"),
        ("prompts", json!(["a", " "]), "text 2 of `prompts` is empty; say what is there, or leave it out"),
        ("prompts", Value::Null, r#"null is not of type "array""#),
        ("image", json!(5), r#"5 is not of type "string""#),
        (
            "image",
            json!("/etc/passwd"),
            "\"/etc/passwd\" is not the URL of a picture; write one such as `https://example.com/picture.jpg`, or a data URI \
             (`data:image/jpeg;base64,…`)",
        ),
        (
            "anchor_image",
            json!(format!("https://{}", "x".repeat(8192))),
            "the URL is longer than the maximum of 8192 bytes",
        ),
        ("strength", json!(1.5), "1.5 is greater than the maximum of 1"),
        ("image_left", json!(-8), "-8 is less than the minimum of 0"),
        ("scheduler", json!("euler"), r#""euler" is not one of "ddim", "unipc" or "dpmpp_2m""#),
    ] {
        assert_eq!(one(field, &value), message);
    }
    assert_eq!(
        errors(&json!({"prompt": 5})),
        r#"[{"loc":["body","input","prompt"],"msg":"5 is not of type \"string\"","type":"value_error"}]"#
    );
    assert_eq!(
        errors(&json!({"prompt": null})),
        r#"[{"loc":["body","input","prompt"],"msg":"null is not of type \"string\"","type":"value_error"}]"#
    );
    assert_eq!(
        errors(&json!([1, 2])),
        r#"[{"loc":["body","input","__root__"],"msg":"[1,2] is not of type \"object\"","type":"value_error"}]"#
    );
    assert_eq!(
        errors(&json!("str")),
        r#"[{"loc":["body","input","__root__"],"msg":"\"str\" is not of type \"object\"","type":"value_error"}]"#
    );
    assert_eq!(
        errors(&json!({"width": 1, "height": "x", "seed": -5})),
        concat!(
            r#"[{"loc":["body","input","height"],"msg":"\"x\" is not of type \"integer\"","type":"value_error"},"#,
            r#"{"loc":["body","input","seed"],"msg":"-5 is less than the minimum of 0","type":"value_error"},"#,
            r#"{"loc":["body","input","width"],"msg":"1 is less than the minimum of 512","type":"value_error"},"#,
            r#"{"loc":["body","input","prompt"],"msg":"Field required","type":"value_error.missing"}]"#
        )
    );
}

#[test]
fn the_rules_of_the_algorithm_name_the_field_and_what_would_do() {
    assert_eq!(one("sync_freq", &json!(0)), "0 is less than the minimum of 1");
    assert_eq!(one("sync_freq", &json!(-3)), "-3 is less than the minimum of 1");
    assert_eq!(one("stride", &json!(0)), "0 is less than the minimum of 8; valid strides are 8, 16 and 32");
    assert_eq!(one("stride", &json!(12)), "12 is not a multiple of 8; valid strides are 8, 16 and 32");
    assert_eq!(one("stride", &json!(64)), "64 is not smaller than the window of 64; valid strides are 8, 16 and 32");
    for stride in [24, 40, 48, 56] {
        assert_eq!(
            one("stride", &json!(stride)),
            format!(
                "{stride} leaves columns or rows uncovered: it does not divide the window of 64; \
                 valid strides are 8, 16 and 32"
            )
        );
    }
    assert_eq!(
        one("width", &json!(1000)),
        "1000 is not a multiple of 128 (8 * stride 16); the nearest are 896 and 1024"
    );
    let looped = parse(&json!({"prompt": "a", "height": 1024, "loop_closure": true}), Some(Geometry::default()));
    assert_eq!(looped.unwrap_err()[0].message, "1024 is not the height of one window, as `loop_closure` needs; 512 is");
    assert_eq!(one("seed", &json!(1e20)), "1e+20 is greater than the maximum of 18446744073709551615");
}

#[test]
fn all_errors_come_at_once() {
    let found =
        parse(&json!({"sync_freq": 0, "stride": 20, "width": 1000, "guidance_scale": 30}), Some(Geometry::default()))
            .unwrap_err();
    let fields: Vec<&str> = found.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["guidance_scale", "stride", "sync_freq", "width", "prompt"]);
}

#[test]
fn a_number_can_be_wrong_twice() {
    let found = parse(&json!({"prompt": "a", "height": 3072.5, "seed": -0.5}), None).unwrap_err();
    let messages: Vec<&str> = found.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "3072.5 is greater than the maximum of 3072",
            "3072.5 is not of type \"integer\"",
            "-0.5 is less than the minimum of 0",
            "-0.5 is not of type \"integer\"",
        ]
    );
}

#[test]
fn numbers_follow_json_schema() {
    let value = json!({"prompt": "a", "guidance_scale": 7, "width": 1024.0, "seed": u64::MAX, "height": 1024e0});
    let input = parse(&value, Some(Geometry::default())).unwrap().input;
    assert_eq!((input.width, input.height, input.seed), (1024, 1024, u64::MAX));
    assert!((input.guidance_scale - 7.0).abs() < f64::EPSILON);
    assert_eq!(
        parse(&json!({"prompt": "a", "num_inference_steps": 1e2}), None).unwrap().input.num_inference_steps,
        100
    );
}

#[test]
fn unknown_keys_are_stripped_and_reported() {
    let parsed = parse(&json!({"prompt": "a", "zzz": 1, "nope": null}), None).unwrap();
    assert_eq!(parsed.stripped, ["nope", "zzz"]);
    assert_eq!((parsed.input.width, parsed.input.stride, parsed.input.seed), (2048, 16, 2));
}

/// Every input after the thirteen has a default, and given at it is the same as left out.
#[test]
fn what_comes_after_the_thirteen_changes_nothing_at_its_default() {
    let absent = parse(&json!({"prompt": "a"}), Some(Geometry::default())).unwrap().input;
    let mut given = json!({"prompt": "a"});
    for field in &TABLE[table::HOSTED..] {
        given[field.name] = field.default.value().expect("it may be left out");
        let one = parse(&json!({"prompt": "a", field.name: field.default.value()}), Some(Geometry::default()));
        assert_eq!(one.unwrap().input, absent, "{}", field.name);
    }
    assert_eq!(parse(&given, Some(Geometry::default())).unwrap().input, absent);
    let written = serde_json::to_value(&absent).unwrap();
    let hosted: Vec<&str> = TABLE[..table::HOSTED].iter().map(|field| field.name).collect();
    assert!(hosted.iter().all(|name| written.get(name).is_some()));
    assert_eq!(written.as_object().unwrap().len(), hosted.len());
}

/// What a response shows as the input makes the same prediction again.
#[test]
fn an_input_can_be_given_again() {
    for given in [
        json!({"prompt": "a"}),
        json!({"prompt": "a", "blend": "smooth"}),
        json!({"prompt": "a", "seamless": true}),
        json!({"prompt": "a", "seamless": true, "blend": "even"}),
        json!({"prompt": "a", "sync_mode": "canvas"}),
        json!({"prompt": "a", "scheduler": "unipc"}),
        json!({"prompt": "a", "prompts": ["b", "c"]}),
        json!({"prompt": "a", "evaluate": true}),
        json!({"prompt": "a", "image": "https://a/b", "blend": "even"}),
        json!({"prompt": "a", "image": "https://a/b", "image_left": 8, "strength": 0.5, "anchor_image": "HTTP://c"}),
    ] {
        let input = parse(&given, Some(Geometry::default())).unwrap().input;
        let again = parse(&serde_json::to_value(&input).unwrap(), Some(Geometry::default())).unwrap();
        assert_eq!((again.input, again.stripped), (input, Vec::new()), "{given}");
    }
}

#[test]
fn a_ring_is_smooth_unless_it_is_said_to_be_even() {
    let blend = |value| parse(&value, None).unwrap().input.blend;
    assert_eq!(blend(json!({"prompt": "a", "seamless": true})), Blend::Smooth);
    assert_eq!(blend(json!({"prompt": "a", "seamless": true, "blend": "even"})), Blend::Even);
    assert_eq!(blend(json!({"prompt": "a", "seamless": false})), Blend::Even);
}

#[test]
fn what_is_drawn_beside_a_picture_is_smooth_unless_it_is_said_to_be_even() {
    let blend = |value| parse(&value, None).unwrap().input.blend;
    assert_eq!(blend(json!({"prompt": "a", "image": "https://a/b"})), Blend::Smooth);
    assert_eq!(blend(json!({"prompt": "a", "image": "https://a/b", "blend": "even"})), Blend::Even);
    assert_eq!(blend(json!({"prompt": "a", "image": null})), Blend::Even);
    assert_eq!(blend(json!({"prompt": "a", "anchor_image": "https://a/b"})), Blend::Even);
}

#[test]
fn a_ring_is_of_any_height_and_not_the_original_s_loop() {
    let ask = |value| parse(&value, Some(Geometry::default()));
    assert!(ask(json!({"prompt": "a", "seamless": true, "height": 1024})).is_ok());
    let refused = ask(json!({"prompt": "a", "seamless": true, "loop_closure": true})).unwrap_err();
    assert_eq!((refused.len(), refused[0].field.as_str()), (1, "seamless"));
    assert!(refused[0].message.contains("`seamless`") && refused[0].message.contains("`loop_closure`"));
    // Either alone is what the message proposes.
    for proposed in [json!({"prompt": "a", "seamless": true}), json!({"prompt": "a", "loop_closure": true})] {
        assert!(ask(proposed).is_ok());
    }
}

#[test]
fn what_belongs_to_a_picture_needs_one() {
    let refused = |value| {
        let mut errors = parse(&value, Some(Geometry::default())).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        let error = errors.remove(0);
        (error.field, error.message)
    };
    for (field, value) in [("strength", json!(0.5)), ("image_left", json!(0))] {
        let (named, message) = refused(json!({"prompt": "a", field: value}));
        assert_eq!(named, field);
        assert!(message.contains("`image`") && message.contains(&format!("`{field}`")), "{message}");
        assert!(parse(&json!({"prompt": "a", field: value, "image": "https://a/b"}), None).is_ok());
    }
    let (field, message) = refused(json!({"prompt": "a", "image": "https://a/b", "image_left": 2048}));
    assert!(field == "image_left" && message.contains("`width` of 2048"), "{message}");
    for nothing in [json!({"prompt": "a", "image": null, "strength": null}), json!({"prompt": "a", "prompts": []})] {
        assert_eq!(parse(&nothing, None).unwrap().input, parse(&json!({"prompt": "a"}), None).unwrap().input);
    }
}

/// An input never has the data of a picture, whoever parses it.
#[test]
fn of_a_data_uri_the_head_is_kept() {
    let data = format!("data:image/png;base64,{}", "A".repeat(1 << 20));
    let input = parse(&json!({"prompt": "a", "image": data}), None).unwrap().input;
    assert_eq!(input.image.as_deref(), Some("data:image/png;base64,"));
}

#[test]
fn the_fast_preset_is_for_what_is_left_out() {
    let input = |value: Value| {
        let with = parse(&value, Some(Geometry::default())).unwrap().input;
        // A model that is known only later makes no difference here.
        assert_eq!(parse(&value, None).unwrap().input, with);
        with
    };
    let fast = input(json!({"prompt": "a", "preset": "fast"}));
    let spelled = json!({
        "prompt": "a", "stride": 32, "blend": "smooth", "scheduler": "unipc", "num_inference_steps": 20,
        "sync_mode": "canvas", "sync_weight": 30,
    });
    assert_eq!(fast, input(spelled));
    let given = json!({
        "prompt": "a", "preset": "fast", "stride": 16, "blend": "even", "scheduler": "ddim", "num_inference_steps": 50,
        "sync_mode": "windows", "sync_weight": 20,
    });
    assert_eq!(input(given), input(json!({"prompt": "a"})));
    assert_eq!(input(json!({"prompt": "a", "preset": "default"})), input(json!({"prompt": "a"})));
    // A model whose windows 32 does not divide has the nearest.
    let small = Geometry { window: 48, vae_factor: 8 };
    assert_eq!(parse(&json!({"prompt": "a", "preset": "fast"}), Some(small)).unwrap().input.stride, 24);
}

#[test]
fn an_error_by_the_preset_names_it() {
    let message = |value| parse(&value, Some(Geometry::default())).unwrap_err().remove(0).message;
    let width = message(json!({"prompt": "a", "width": 640, "preset": "fast"}));
    assert!(width.contains("stride 32") && width.contains("`preset`"), "{width}");
    let width = message(json!({"prompt": "a", "width": 600, "preset": "fast", "stride": 16}));
    assert!(!width.contains("preset"), "{width}");
    assert!(parse(&json!({"prompt": "a", "width": 640, "preset": "fast", "stride": 16}), None).is_ok());
}

#[test]
fn a_geometry_that_comes_late_is_checked_with_the_same_words() {
    let input = parse(&json!({"prompt": "a", "width": 1000}), None).unwrap().input;
    assert_eq!(
        check_geometry(&input, Geometry::default()).unwrap_err(),
        parse(&json!({"prompt": "a", "width": 1000}), Some(Geometry::default())).unwrap_err()
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        (-10i64..4000).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
    ]
}

proptest! {
    #[test]
    fn whatever_is_accepted_can_be_drawn(
        width in 500i64..3100, height in 500i64..3100, stride in -8i64..72, freq in -1i64..4, looped: bool,
    ) {
        let value = json!({"prompt": "", "width": width, "height": height, "stride": stride, "sync_freq": freq,
            "loop_closure": looped});
        if let Ok(Parsed { input, .. }) = parse(&value, Some(Geometry::default())) {
            prop_assert!(input.sync_freq >= 1 && input.stride >= 8 && input.stride < 64);
            for size in [input.width, input.height] {
                prop_assert!((512..=3072).contains(&size) && size % (8 * input.stride) == 0);
                prop_assert_eq!((size / 8 - 64) % input.stride, 0);
            }
            prop_assert!(!looped || input.height == 512);
        }
    }

    #[test]
    fn what_a_message_proposes_is_accepted(width in 512i64..3073, stride in prop_oneof![Just(8), Just(16), Just(32)]) {
        let input = |width: &Value| json!({"prompt": "", "width": width, "stride": stride});
        let ask = |width: &Value| parse(&input(width), Some(Geometry::default()));
        if let Err(errors) = ask(&json!(width)) {
            let (_, named) = errors[0].message.split_once("the nearest ").unwrap();
            let proposals: Vec<i64> = named.split(' ').filter_map(|word| word.parse().ok()).collect();
            prop_assert!(!proposals.is_empty());
            for proposal in proposals {
                prop_assert!((512..=3072).contains(&proposal));
                prop_assert!(ask(&json!(proposal)).is_ok());
            }
        }
    }

    #[test]
    fn nothing_panics_and_errors_are_sorted(fields in prop::collection::btree_map(
        prop::sample::select(TABLE.iter().map(|field| field.name).collect::<Vec<_>>()), any_json(), 0..=TABLE.len(),
    )) {
        let value = Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
        if let Err(errors) = parse(&value, Some(Geometry::default())) {
            let found: Vec<&String> = errors.iter().filter(|e| e.kind == "value_error").map(|e| &e.field).collect();
            prop_assert!(found.is_sorted());
        }
    }
}

#[test]
fn a_text_has_a_greatest_length() {
    let most = "ü".repeat(MAX_TEXT / 2);
    assert_eq!(parse(&json!({"prompt": most}), None).unwrap().input.prompt, most);
    let message = one("negative_prompt", &json!(format!("{most}x")));
    assert_eq!(message, "the text is longer than the maximum of 1048576 bytes");
}
