//! Functions against what they are, and modules that do what they may not.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Float64Array, Int16Array, Int32Array, Int64Array,
        StringViewArray,
    },
    datatypes::{Float64Type, Int16Type, Int32Type, Int64Type},
};
use datafusion::{
    common::{DataFusionError, ScalarValue},
    config::ConfigOptions,
    logical_expr::{ColumnarValue, ScalarFunctionArgs},
};
use proptest::prelude::*;
use tidemill_storage::{
    clock::{Clock, SystemClock},
    schema::DataType,
};

use super::Sandbox;
use crate::{
    SqlError,
    functions::user::{Declaration, Unfit, UserFunction, is_user_function},
};

const MODULE: &str = r#"(module
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 1024))
    (func (export "alloc") (param i32) (result i32) (local i32)
        global.get $next local.set 1
        (if (i32.gt_u (i32.add (local.get 1) (local.get 0)) (i32.mul (memory.size) (i32.const 65536)))
            (then (drop (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get 0) (i32.const 16)))))))
        (global.set $next (i32.add (local.get 1) (local.get 0)))
        local.get 1)
    (func (export "mix") (param i64 i32 f64) (result f64)
        (f64.add (f64.mul (f64.convert_i64_s (local.get 0)) (local.get 2)) (f64.convert_i32_s (local.get 1))))
    (func (export "sum") (param i64 i64) (result i64) (i64.add (local.get 0) (local.get 1)))
    (func (export "is_odd") (param i32) (result i32) (i32.and (local.get 0) (i32.const 2147483649)))
    (func (export "double") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))
    (func (export "seven") (result i64) i64.const 7)
    (func (export "div") (param i64 i64) (result i64) (i64.div_s (local.get 0) (local.get 1)))
    (func (export "endless") (param i64) (result i64)
        (if (i64.eq (local.get 0) (i64.const 13)) (then (loop (br 0)))) local.get 0)
    (func $deep (export "deep") (param i64) (result i64) local.get 0 call $deep)
    (func (export "grow") (param i64) (result i64) (i64.extend_i32_s (memory.grow (i32.const 2000))))
    (func (export "same") (param i32 i32) (result i64)
        (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1))))
    (func (export "rest") (param i32 i32) (result i64)
        (if (result i64) (i32.eqz (local.get 1))
            (then (i64.const -1))
            (else (i64.or (i64.shl (i64.extend_i32_u (i32.add (local.get 0) (i32.const 1))) (i64.const 32))
                          (i64.extend_i32_u (i32.sub (local.get 1) (i32.const 1)))))))
    (func (export "length") (param i32 i32 i32) (result i32) (i32.add (local.get 1) (local.get 2)))
    (func (export "outside") (param i32 i32) (result i64) i64.const 0x7fffffff00000010))"#;

static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| Sandbox::new().unwrap());

fn made_of(text: &str, symbol: &str, arguments: &[DataType], returns: DataType) -> Result<Arc<UserFunction>, Unfit> {
    let declaration = Declaration {
        oid: 1,
        name: symbol.to_owned(),
        arguments: arguments.iter().map(|data_type| (None, data_type.clone())).collect(),
        returns,
        called_on_null: false,
    };
    UserFunction::wasm(&SANDBOX, declaration, &wat::parse_str(text).unwrap(), symbol)
}

fn made(symbol: &str, arguments: &[DataType], returns: DataType) -> Arc<UserFunction> {
    made_of(MODULE, symbol, arguments, returns).unwrap()
}

fn call(function: &Arc<UserFunction>, arguments: Vec<ArrayRef>, rows: usize) -> Result<ArrayRef, SqlError> {
    let udf = function.udf();
    let arg_fields = function.declaration().arguments.iter().map(|(_, data_type)| Arc::new(data_type.field("a", true)));
    let arguments = ScalarFunctionArgs {
        args: arguments.into_iter().map(ColumnarValue::Array).collect(),
        arg_fields: arg_fields.collect(),
        number_rows: rows,
        return_field: Arc::new(function.declaration().returns.field("f", true)),
        config_options: Arc::new(ConfigOptions::default()),
    };
    let called = udf.invoke_with_args(arguments).and_then(|value| value.into_array(rows));
    called.map_err(|error: DataFusionError| SqlError::from_datafusion(&error, ""))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any number of rows, with NULLs anywhere: blocks give what the function is of each row.
    #[test]
    fn blocks_are_rows(rows in prop::collection::vec((any::<Option<i32>>(), any::<Option<i32>>(), any::<Option<i16>>()), 0..3000)) {
        let mix = made("mix", &[DataType::BigInt, DataType::Int, DataType::Double], DataType::Double);
        let (a, b): (Int64Array, Int32Array) = (rows.iter().map(|row| row.0.map(i64::from)).collect(), rows.iter().map(|row| row.1).collect());
        let c: Float64Array = rows.iter().map(|row| row.2.map(f64::from)).collect();
        let found = call(&mix, vec![Arc::new(a), Arc::new(b), Arc::new(c)], rows.len()).unwrap();
        let wanted: Vec<Option<f64>> = rows.iter().map(|(a, b, c)| Some(f64::from((*a)?) * f64::from((*c)?) + f64::from((*b)?))).collect();
        prop_assert_eq!(found.as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn texts_come_as_they_went(texts in prop::collection::vec(any::<Option<String>>(), 0..60)) {
        let same = made("same", &[DataType::Text], DataType::Text);
        let given: StringViewArray = texts.iter().map(Option::as_deref).collect();
        let found = call(&same, vec![Arc::new(given.clone())], texts.len()).unwrap();
        prop_assert_eq!(found.as_string_view().iter().collect::<Vec<_>>(), given.iter().collect::<Vec<_>>());
        // All but the first byte; nothing of nothing is NULL.
        let rest = made("rest", &[DataType::Bytea], DataType::Bytea);
        let given: BinaryViewArray = texts.iter().map(|text| text.as_ref().map(|text| text.as_bytes())).collect();
        let found = call(&rest, vec![Arc::new(given.clone())], texts.len()).unwrap();
        let wanted: Vec<Option<&[u8]>> = given.iter().map(|bytes| bytes?.get(1..)).collect();
        prop_assert_eq!(found.as_binary_view().iter().collect::<Vec<_>>(), wanted);
    }
}

#[test]
fn types_are_passed_as_they_are() {
    let is_odd = made("is_odd", &[DataType::Int], DataType::Boolean);
    let found = call(&is_odd, vec![Arc::new(Int32Array::from(vec![Some(1), None, Some(-2), Some(4)]))], 4).unwrap();
    assert_eq!(found.as_boolean(), &BooleanArray::from(vec![Some(true), None, Some(true), Some(false)]));
    let double = made("double", &[DataType::SmallInt], DataType::SmallInt);
    let found = call(&double, vec![Arc::new(Int16Array::from(vec![-3, 16383]))], 2).unwrap();
    assert_eq!(found.as_primitive::<Int16Type>().values(), &[-6, 32766]);
    let error = call(&double, vec![Arc::new(Int16Array::from(vec![16384]))], 1).unwrap_err();
    assert_eq!(error.sqlstate, "38000");
    let found = call(&made("seven", &[], DataType::BigInt), Vec::new(), 3).unwrap();
    assert_eq!(found.as_primitive::<Int64Type>().values(), &[7, 7, 7]);
    let length = made("length", &[DataType::Text, DataType::Int], DataType::Int);
    let texts = StringViewArray::from(vec![Some("å"), None, Some("")]);
    let found = call(&length, vec![Arc::new(texts), Arc::new(Int32Array::from(vec![10, 10, 10]))], 3).unwrap();
    assert_eq!(found.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(12), None, Some(10)]);
    let constant = made("sum", &[DataType::BigInt, DataType::BigInt], DataType::BigInt).udf();
    assert_eq!(constant.signature().volatility, datafusion::logical_expr::Volatility::Immutable);
    assert!(is_user_function(&constant));
    assert_eq!(ScalarValue::Int64(Some(7)).data_type(), constant.return_type(&[]).unwrap());
}

#[test]
fn what_fails_says_so_and_the_next_call_works() {
    let numbers = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let div = made("div", &[DataType::BigInt, DataType::BigInt], DataType::BigInt);
    for _ in 0..3 {
        let error = call(&div, vec![numbers(vec![1, 2]), numbers(vec![1, 0])], 2).unwrap_err();
        assert_eq!(error.sqlstate, "38000");
        assert!(error.message.contains("div()") && error.message.contains("divide by zero"), "{}", error.message);
        assert_eq!(
            call(&div, vec![numbers(vec![6]), numbers(vec![2])], 1).unwrap().as_primitive::<Int64Type>().value(0),
            3
        );
    }
    let clock = SystemClock::new();
    let begun_us = clock.monotonic_us();
    let endless = made("endless", &[DataType::BigInt], DataType::BigInt);
    let error = call(&endless, vec![numbers(vec![12, 13])], 2).unwrap_err();
    assert_eq!(error.sqlstate, "57014");
    let took = Duration::from_micros((clock.monotonic_us() - begun_us).unsigned_abs());
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&took), "{took:?}");
    call(&endless, vec![numbers(vec![12])], 1).unwrap();
    for (name, words) in [("deep", "call stack exhausted"), ("grow", "64 MiB")] {
        let error = call(&made(name, &[DataType::BigInt], DataType::BigInt), vec![numbers(vec![1])], 1).unwrap_err();
        assert!(error.sqlstate == "38000" && error.message.contains(words), "{}", error.message);
    }
    let outside = made("outside", &[DataType::Text], DataType::Text);
    let error = call(&outside, vec![Arc::new(StringViewArray::from(vec!["a"]))], 1).unwrap_err();
    assert!(error.message.contains("outside of its memory"), "{}", error.message);
    // A part of a character is no text.
    let rest = made("rest", &[DataType::Text], DataType::Text);
    let error = call(&rest, vec![Arc::new(StringViewArray::from(vec!["å"]))], 1).unwrap_err();
    assert!(error.message.contains("UTF-8"), "{}", error.message);
}

/// `alloc` never frees: what calls leave behind fills the memory of an instance, and another one goes on.
#[test]
fn an_instance_that_is_full_is_replaced() {
    let same = made("same", &[DataType::Text], DataType::Text);
    let text = "x".repeat(1 << 20);
    let texts: ArrayRef = Arc::new(StringViewArray::from(vec![text.as_str(); 20]));
    for _ in 0..8 {
        assert_eq!(call(&same, vec![Arc::clone(&texts)], 20).unwrap().len(), 20);
    }
}

#[test]
fn modules_that_do_not_fit_are_refused_with_what_to_do() {
    let big = DataType::BigInt;
    let start = r#"(module (func $s (loop (br 0))) (start $s) (func (export "f") (result i64) i64.const 1))"#;
    let imports = r#"(module (import "env" "now" (func)) (func (export "f") (result i64) i64.const 1))"#;
    let memory = r#"(module (memory 2000) (func (export "f") (result i64) i64.const 1))"#;
    for (text, symbol, arguments, returns, words) in [
        (MODULE, "nope", vec![big.clone()], big.clone(), "exports no function \"nope\""),
        (MODULE, "memory", vec![big.clone()], big.clone(), "exports no function \"memory\""),
        (
            MODULE,
            "sum",
            vec![big.clone()],
            big.clone(),
            "(i64, i64) -> (i64), and the declaration needs (i64) -> (i64)",
        ),
        (MODULE, "sum", vec![big.clone(), DataType::Uuid], big.clone(), "cannot be passed"),
        (
            r#"(module (func (export "f") (param i32 i32) (result i64) i64.const 1))"#,
            "f",
            vec![DataType::Text],
            big.clone(),
            "exports \"memory\" and a function \"alloc\"",
        ),
        (imports, "f", vec![], big.clone(), "imports env.now"),
        (memory, "f", vec![], big.clone(), "cannot be started"),
        (start, "f", vec![], big.clone(), "did not end within a second"),
    ] {
        let unfit = made_of(text, symbol, &arguments, returns).unwrap_err();
        assert!(unfit.message.contains(words), "{unfit:?}");
    }
    let declaration =
        Declaration { oid: 1, name: "f".into(), arguments: Vec::new(), returns: big, called_on_null: false };
    for (bytes, words) in [
        (&b"(module)"[..], "no WebAssembly module"),
        (b"\0asm\x01\0\0\0\x01", "cannot be compiled"),
        (b"", "no WebAssembly module"),
    ] {
        let unfit = UserFunction::wasm(&SANDBOX, declaration.clone(), bytes, "f").unwrap_err();
        assert!(unfit.message.contains(words), "{unfit:?}");
    }
}
