//! What the rows say: each a pure function of (seed, partition, offset).
//!
//! Orders come in bundles of [`LIFE`] rows: bundle `b` tells the life of one order, placed → accepted → cooking → picked_up →
//! delivered, where some are cancelled on the way. The lives of [`OVERLAP`] orders run side by side, so that neighbouring rows are of different orders
//! and one order's rows lie that far apart.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, Float64Builder, Int32Builder, Int64Builder, ListBuilder, RecordBatch, StringViewBuilder,
        TimestampMicrosecondBuilder,
    },
    datatypes::{DataType as ArrowType, Schema as ArrowSchema, SchemaRef},
};
use tidemill_storage::schema::{DataType, UTC};

use super::columns;

/// Rows of one order.
pub(super) const LIFE: u64 = 5;
/// Orders that are under way at a time.
pub(super) const OVERLAP: u64 = 64;

/// Name, weight, latitude and longitude of the centre, level of prices.
const CITIES: [(&str, u64, f64, f64, f64); 12] = [
    ("Berlin", 18, 52.520, 13.405, 1.0),
    ("Hamburg", 11, 53.551, 9.994, 1.05),
    ("Munich", 12, 48.137, 11.575, 1.2),
    ("Cologne", 8, 50.938, 6.960, 0.98),
    ("Frankfurt", 7, 50.110, 8.682, 1.12),
    ("Stuttgart", 5, 48.776, 9.183, 1.08),
    ("Vienna", 10, 48.208, 16.373, 1.06),
    ("Zurich", 6, 47.377, 8.541, 1.7),
    ("Prague", 8, 50.075, 14.437, 0.8),
    ("Warsaw", 9, 52.230, 21.012, 0.75),
    ("Leipzig", 4, 51.340, 12.374, 0.88),
    ("Graz", 2, 47.071, 15.439, 0.95),
];

const TAGS: [&str; 8] = ["new_customer", "vegan", "voucher", "express", "group", "cash", "gift", "scheduled"];
const RESTAURANTS_PER_CITY: u64 = 160;

/// What stays the same over the life of an order.
struct Order {
    order_id: i64,
    restaurant_id: i64,
    customer_id: i64,
    courier_id: i64,
    city: usize,
    items: i32,
    total_price: f64,
    tags: [Option<&'static str>; 3],
    lat: f64,
    lon: f64,
    /// Rows from this one on say `cancelled`.
    cancelled_at: u64,
}

impl Order {
    fn new(seed: u64, partition: u32, partitions: u32, number: u64) -> Self {
        let mut random = Random::new(seed, partition, number);
        let city = random.city();
        let (_, _, centre_lat, centre_lon, prices) = CITIES[city];
        let items = 1 + random.below(6).min(random.below(6)) as i32;
        // Cents first: prices look like money and are never below the fee.
        let cents = (1..=items).fold(199.0, |sum, _| sum + (450.0 + random.unit() * 1350.0) * prices);
        let tag = |roll: u64| TAGS.get(roll as usize).copied();
        Self {
            // Partitions take turns, so that an id is one order's alone.
            order_id: (number * u64::from(partitions) + u64::from(partition) + 1) as i64,
            // The squared roll makes a few restaurants much liked.
            restaurant_id: (city as u64 * RESTAURANTS_PER_CITY
                + (random.unit().powi(2) * RESTAURANTS_PER_CITY as f64) as u64
                + 1) as i64,
            customer_id: 1 + random.below(200_000) as i64,
            courier_id: (city as u64 * 400 + 1 + random.below(400)) as i64,
            city,
            items,
            total_price: cents.round() / 100.0,
            tags: [tag(random.below(12)), tag(random.below(24)), tag(random.below(48))],
            lat: round6(centre_lat + (random.unit() + random.unit() - 1.0) * 0.06),
            lon: round6(centre_lon + (random.unit() + random.unit() - 1.0) * 0.09),
            cancelled_at: if random.below(100) < 7 { 1 + random.below(3) } else { LIFE },
        }
    }

    fn status(&self, step: u64) -> &'static str {
        match step {
            _ if step >= self.cancelled_at => "cancelled",
            0 => "placed",
            1 => "accepted",
            2 => "cooking",
            3 => "picked_up",
            _ => "delivered",
        }
    }
}

/// Which order a row belongs to, and which step of its life it tells.
pub(super) fn order_of(offset: u64) -> (u64, u64) {
    let window = offset / (OVERLAP * LIFE);
    let within = offset % (OVERLAP * LIFE);
    (window * OVERLAP + within % OVERLAP, within / OVERLAP)
}

/// Which of the generator's columns are wanted, and in what types.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) schema: SchemaRef,
    /// For each column of the schema its index in [`columns`].
    indices: Vec<usize>,
}

impl Layout {
    /// `wanted` by name; the error names a column that is not ours, or has another type than ours.
    pub(super) fn new(wanted: &[crate::decode::SourceColumn]) -> Result<Self, String> {
        let ours = columns();
        let mut indices = Vec::new();
        for column in wanted {
            let index = ours.iter().position(|known| known.name == column.name);
            let index = index.ok_or_else(|| {
                let names: Vec<&str> = ours.iter().map(|known| known.name.as_str()).collect();
                format!("the generator has no column '{}'; it has {}", column.name, names.join(", "))
            })?;
            if ours[index].data_type != column.data_type {
                return Err(format!("the generator's column '{}' has type {}", column.name, ours[index].data_type));
            }
            indices.push(index);
        }
        let fields: Vec<_> =
            wanted.iter().map(|column| column.data_type.field(&column.name, column.nullable)).collect();
        Ok(Self { schema: Arc::new(ArrowSchema::new(fields)), indices })
    }
}

/// The rows of `offsets`, whose event times are given by `time_us`.
pub(super) fn rows(
    layout: &Layout,
    (seed, partition, partitions): (u64, u32, u32),
    offsets: std::ops::Range<u64>,
    time_us: impl Fn(u64) -> i64,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let count = (offsets.end - offsets.start) as usize;
    let integers = || Int64Builder::with_capacity(count);
    let floats = || Float64Builder::with_capacity(count);
    let (mut order_id, mut restaurant_id, mut customer_id, mut courier_id) =
        (integers(), integers(), integers(), integers());
    let (mut city, mut status) = (StringViewBuilder::with_capacity(count), StringViewBuilder::with_capacity(count));
    let mut items = Int32Builder::with_capacity(count);
    let (mut total_price, mut lat, mut lon) = (floats(), floats(), floats());
    let ArrowType::List(item) = DataType::Array(Box::new(DataType::Text)).arrow() else {
        unreachable!("invariant: an array of text is a list")
    };
    let mut tags = ListBuilder::with_capacity(StringViewBuilder::with_capacity(count), count).with_field(item);
    let mut ts = TimestampMicrosecondBuilder::with_capacity(count).with_timezone(UTC);
    for offset in offsets {
        let (number, step) = order_of(offset);
        let order = Order::new(seed, partition, partitions, number);
        order_id.append_value(order.order_id);
        restaurant_id.append_value(order.restaurant_id);
        customer_id.append_value(order.customer_id);
        // Nobody carries it before it is cooking.
        courier_id.append_option((step >= 2).then_some(order.courier_id));
        city.append_value(CITIES[order.city].0);
        status.append_value(order.status(step));
        items.append_value(order.items);
        total_price.append_value(order.total_price);
        for tag in order.tags.into_iter().flatten() {
            tags.values().append_value(tag);
        }
        tags.append(true);
        lat.append_value(order.lat);
        lon.append_value(order.lon);
        ts.append_value(time_us(offset));
    }
    let all: [ArrayRef; 12] = [
        Arc::new(order_id.finish()),
        Arc::new(restaurant_id.finish()),
        Arc::new(customer_id.finish()),
        Arc::new(courier_id.finish()),
        Arc::new(city.finish()),
        Arc::new(status.finish()),
        Arc::new(items.finish()),
        Arc::new(total_price.finish()),
        Arc::new(tags.finish()),
        Arc::new(lat.finish()),
        Arc::new(lon.finish()),
        Arc::new(ts.finish()),
    ];
    let columns = layout.indices.iter().map(|index| Arc::clone(&all[*index])).collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(count));
    RecordBatch::try_new_with_options(Arc::clone(&layout.schema), columns, &options)
}

fn round6(degrees: f64) -> f64 {
    (degrees * 1e6).round() / 1e6
}

/// SplitMix64: a few cycles a number, and any state is a good start.
struct Random(u64);

impl Random {
    fn new(seed: u64, partition: u32, number: u64) -> Self {
        let mut random = Self(seed ^ u64::from(partition).wrapping_mul(0xD6E8_FEB8_6659_FD93));
        let mixed = random.next();
        Self(mixed ^ number.wrapping_mul(0xA076_1D64_78BD_642F))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn city(&mut self) -> usize {
        let total: u64 = CITIES.iter().map(|city| city.1).sum();
        let mut roll = self.below(total);
        for (index, city) in CITIES.iter().enumerate() {
            if roll < city.1 {
                return index;
            }
            roll -= city.1;
        }
        0
    }
}
