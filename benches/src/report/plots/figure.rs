//! Bars beside their names: the one look of all plots.

use charts_rs::{
    Align, Box as Edges, ChildChart, Color, HorizontalBarChart, MultiChart, Position, Series,
    TextConfig,
};

use crate::report::table::number;

/// Names with a sans serif face on every system; text is measured as Roboto, which is no narrower.
const FONT: &str = "Roboto, Helvetica, Arial, sans-serif";
/// From the palette of Okabe and Ito. One colour beside grey is told apart by everybody, in print
/// too.
const OURS: (u8, u8, u8) = (0, 114, 178);
const THEIRS: (u8, u8, u8) = (176, 182, 190);
const INK: (u8, u8, u8) = (36, 41, 47);
const FAINT: (u8, u8, u8) = (225, 228, 232);
/// A card of its own: pages may be dark.
const PAPER: (u8, u8, u8) = (255, 255, 255);

const PANEL_WIDTH: f32 = 440.0;
const ROW_HEIGHT: f32 = 25.0;
/// Title, axis and its title.
const PANEL_FRAME: f32 = 92.0;
const COLUMNS: usize = 2;
const GAP: f32 = 12.0;
const TOP: f32 = 44.0;
const TICKS: usize = 4;
/// A bar this many times as long as those that count is cut.
const CUT: f64 = 3.0;
/// Behind each name: where Roboto is not installed, another face may be wider.
const SLACK: &str = "\u{a0}\u{a0}\u{a0}";
/// Room for the number behind the longest bar.
const HEADROOM: f64 = 1.18;

/// One file: panels side by side.
pub(super) struct Figure {
    pub(super) title: String,
    pub(super) panels: Vec<Panel>,
}

/// The same figure of all contenders.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) axis: String,
    pub(super) unit: String,
    pub(super) bars: Vec<Bar>,
}

/// One contender.
pub(super) struct Bar {
    pub(super) name: String,
    /// `None`: it failed.
    pub(super) value: Option<f64>,
    pub(super) ours: bool,
    /// So long that the others could not be compared any more, it ends with the axis, and its name
    /// says how long it is.
    pub(super) may_be_cut: bool,
}

impl Figure {
    /// The file.
    pub(super) fn svg(&self) -> charts_rs::Result<String> {
        let rows = self.panels.iter().map(|panel| panel.bars.len()).max();
        let height = f32_of(rows.unwrap_or_default()) * ROW_HEIGHT + PANEL_FRAME;
        let mut all = MultiChart::new();
        all.font_family = FONT.to_owned();
        all.background_color = Some(PAPER.into());
        all.margin = Edges::from((0.0, GAP, GAP, 0.0));
        let mut title = TextConfig {
            text: self.title.clone(),
            left: Some(GAP + 8.0),
            top: Some(14.0),
            ..TextConfig::default()
        };
        title.font.size = 17.0;
        title.font.weight = Some("bold".to_owned());
        title.font.color = INK.into();
        all.texts = vec![title];
        for (index, panel) in self.panels.iter().enumerate() {
            let mut chart = panel.chart();
            chart.width = PANEL_WIDTH;
            chart.height = height;
            let (column, row) = (f32_of(index % COLUMNS), f32_of(index / COLUMNS));
            let place = (
                GAP + column * (PANEL_WIDTH + GAP),
                TOP + row * (height + GAP),
            );
            all.add(ChildChart::HorizontalBar(chart, Some(place)));
        }
        all.svg()
    }
}

impl Panel {
    fn chart(&self) -> HorizontalBarChart {
        let most = self.longest();
        let cut = |bar: &Bar| bar.value.is_some_and(|value| value > most);
        let mut whole = Series::new(self.title.clone(), Vec::new());
        whole.data = self.values(|bar| !cut(bar));
        whole.label_show = true;
        let color = |bar: &Bar| Some(Color::from(if bar.ours { OURS } else { THEIRS }));
        whole.colors = Some(self.bars.iter().map(color).collect());
        whole.stack = Some("one bar for each name".to_owned());
        // Apart, for their numbers would be those of their lengths.
        let mut short = whole.clone();
        short.data = self.values(cut);
        for value in short.data.iter_mut().flatten() {
            *value = narrow(most);
        }
        short.label_show = false;
        let names = self.bars.iter().map(|bar| match bar.value {
            Some(value) if cut(bar) => format!("{}: {} »{SLACK}", bar.name, number(value)),
            Some(_) => format!("{}{SLACK}", bar.name),
            None => format!("{} (failed){SLACK}", bar.name),
        });

        let mut chart = HorizontalBarChart::new(vec![whole, short], names.collect());
        chart.font_family = FONT.to_owned();
        chart.background_color = PAPER.into();
        chart.margin = Edges::from((4.0, 8.0, 8.0, 8.0));
        chart.legend.show = Some(false);
        chart.title.text = self.title.clone();
        chart.title.align = Align::Left;
        chart.title.font.size = 14.0;
        chart.title.font.color = INK.into();
        chart.title.height = 26.0;
        chart.x_axis.font.size = 12.0;
        chart.x_axis.font.color = INK.into();
        chart.x_axis.stroke_color = FAINT.into();
        chart.grid.stroke_color = FAINT.into();
        chart.series_label_position = Some(Position::Right);
        chart.series.label.font.size = 12.0;
        chart.series.label.font.color = INK.into();
        chart.series.label.formatter = self.formatter();
        for axis in &mut chart.y_axis_configs {
            axis.font.size = 11.0;
            axis.font.color = INK.into();
            axis.stroke_color = FAINT.into();
            axis.formatter = Some("{t}".to_owned());
            axis.split_number = TICKS;
            axis.min = Some(0.0);
            axis.max = Some(narrow(most));
        }
        chart.x_axis.title = self.axis.clone();
        chart
    }

    /// In the order from below.
    fn values(&self, which: impl Fn(&Bar) -> bool) -> Vec<Option<f32>> {
        let bars = self.bars.iter();
        bars.map(|bar| bar.value.filter(|_| which(bar)).map(narrow))
            .collect()
    }

    /// Where the axis ends.
    fn longest(&self) -> f64 {
        let longest = |which: &dyn Fn(&&Bar) -> bool| {
            let bars = self.bars.iter().filter(which);
            bars.filter_map(|bar| bar.value).fold(0.0, f64::max)
        };
        let (of_all, of_most) = (longest(&|_| true), longest(&|bar| !bar.may_be_cut));
        let cut = of_most > 0.0 && of_all > of_most * CUT;
        round_up(if cut { of_most } else { of_all } * HEADROOM)
    }

    /// As many digits as the shortest bar needs.
    fn formatter(&self) -> String {
        let values = self.bars.iter().filter_map(|bar| bar.value);
        let least = values.fold(f64::INFINITY, f64::min);
        let digits = match least {
            _ if self.unit.is_empty() => 0,
            least if least < 10.0 => 2,
            least if least < 100.0 => 1,
            _ => 0,
        };
        match digits {
            0 => "{t}".to_owned(),
            digits => format!("{{:.{digits}}}"),
        }
    }
}

/// The next number that can be divided by four without many digits.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 4.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= value);
    step.unwrap_or(10.0) * power
}

#[allow(clippy::cast_possible_truncation, reason = "a length on paper")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[allow(clippy::cast_precision_loss, reason = "a handful of panels and rows")]
fn f32_of(count: usize) -> f32 {
    count as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(values: [f64; 3]) -> Panel {
        let bar = |value, may_be_cut| Bar {
            name: "name".to_owned(),
            value: Some(value),
            ours: false,
            may_be_cut,
        };
        let [first, second, last] = values;
        Panel {
            title: "title".to_owned(),
            axis: "ms".to_owned(),
            unit: "ms".to_owned(),
            bars: vec![bar(first, false), bar(second, false), bar(last, true)],
        }
    }

    #[test]
    fn a_bar_that_dwarfs_the_others_ends_with_the_axis_and_says_its_length() {
        let cut = panel([1.1, 4.6, 92.0]).chart();
        assert_eq!(cut.y_axis_configs[0].max, Some(6.0));
        assert_eq!(cut.series_list[0].data[2], None);
        assert_eq!(cut.series_list[1].data, [None, None, Some(6.0)]);
        assert_eq!(cut.x_axis.data[2].trim_end(), "name: 92.0 »");
    }

    #[test]
    fn any_other_bar_is_drawn_in_full() {
        let whole = panel([45.0, 93.0, 270.0]).chart();
        assert_eq!(whole.y_axis_configs[0].max, Some(320.0));
        assert_eq!(whole.series_list[0].data[2], Some(270.0));
        // However long, if there is nothing to compare.
        assert_eq!(
            panel([0.0, 0.0, 71.0]).chart().y_axis_configs[0].max,
            Some(100.0)
        );
        assert_eq!(
            panel([0.0, 0.0, 0.0]).chart().y_axis_configs[0].max,
            Some(4.0)
        );
    }
}
