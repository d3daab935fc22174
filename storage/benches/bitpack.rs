//! The packed-integer kernels: bulk unpacking, one by one, gathering and selecting, for the widths that dictionary ids have. 64 Ki values,
//! so that the second-level cache holds them: what a scan sees of a column that it just read. More elements per second are better.

#![allow(clippy::unwrap_used, reason = "for benchmarks")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidemill_storage::bitpack::{Bitmask, IdSet, PADDING, Packed, pack, range_mask_i64, scalar};

const VALUES: usize = 64 * 1024;

fn packed(width: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack((0..VALUES as u64).map(|value| value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20), width, &mut bytes);
    bytes.resize(bytes.len() + PADDING, 0);
    bytes
}

fn kernels(c: &mut Criterion) {
    let mut group = c.benchmark_group("bitpack");
    group.throughput(Throughput::Elements(VALUES as u64));
    let tenth = {
        let mut mask = Bitmask::none(VALUES);
        (0..VALUES).filter(|row| row.wrapping_mul(0x9e37_79b9) >> 8 & 0xff < 26).for_each(|row| mask.set(row));
        mask
    };
    for width in 1..=21u8 {
        let bytes = packed(width);
        let packed = Packed::new(&bytes, width, VALUES).expect("long enough");
        let mut out = vec![0u32; VALUES];
        group.bench_function(BenchmarkId::new("unpack", width), |b| {
            b.iter(|| packed.unpack_u32(0, black_box(&mut out)))
        });
    }
    for width in [4u8, 8, 13, 20, 28] {
        let bytes = packed(width);
        let packed = Packed::new(&bytes, width, VALUES).expect("long enough");
        let mut out = vec![0u32; VALUES];
        let mut words = vec![0u64; VALUES / 64];
        group.bench_function(BenchmarkId::new("unpack, scalar twin", width), |b| {
            b.iter(|| scalar::unpack_u32(&bytes, width, 0, black_box(&mut out)));
        });
        group.bench_function(BenchmarkId::new("select a range", width), |b| {
            b.iter(|| packed.select_range(0, VALUES, 3, 1 << (width - 1), black_box(&mut words)));
        });
        if width <= 20 {
            let set = IdSet::of(1 << width, (0..1 << width).step_by(3));
            group.bench_function(BenchmarkId::new("select a set", width), |b| {
                b.iter(|| packed.select_set(0, VALUES, &set, black_box(&mut words)));
            });
        }
        group.bench_function(BenchmarkId::new("gather a tenth", width), |b| {
            b.iter(|| {
                let mut picked = Vec::with_capacity(VALUES);
                packed.gather_u32(0, &tenth, &mut picked);
                picked
            });
        });
    }
    for width in [40u8, 62] {
        let bytes = packed(width);
        let packed = Packed::new(&bytes, width, VALUES).expect("long enough");
        let mut out = vec![0u64; VALUES];
        group.bench_function(BenchmarkId::new("unpack to 64 bits", width), |b| {
            b.iter(|| packed.unpack_u64(0, black_box(&mut out)));
        });
    }
    let values: Vec<i64> =
        (0..VALUES as i64).map(|value| value.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)).collect();
    let mut words = vec![0u64; VALUES / 64];
    group.bench_function("compare 64-bit integers", |b| {
        b.iter(|| range_mask_i64(&values, -1 << 60, 1 << 61, black_box(&mut words)));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_millis(400)).warm_up_time(std::time::Duration::from_millis(200));
    targets = kernels
}
criterion_main!(benches);
