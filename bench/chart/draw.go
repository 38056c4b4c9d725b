package main

import (
	"bytes"
	"image/color"
	"math"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	width       = 860 * vg.Inch / 96
	panelHeight = 300 * vg.Inch / 96
	topHeight   = 64 * vg.Inch / 96
	legendWidth = 235 * vg.Inch / 96
	margin      = 12 * vg.Inch / 96
)

// look is how a line is drawn. The colours are those of Okabe and Ito, which
// differ for all kinds of colour blindness; marks and dashes differ as well.
type look struct {
	color  color.Color
	mark   draw.GlyphDrawer
	dashes []vg.Length
}

var looks = map[int]look{
	looksFirst:       {color.RGBA{0x00, 0x72, 0xb2, 0xff}, draw.CircleGlyph{}, nil},                                     // blue
	looksFloor:       {color.RGBA{0x55, 0x55, 0x55, 0xff}, draw.SquareGlyph{}, nil},                                     // grey
	looksPartOfFloor: {color.RGBA{0x55, 0x55, 0x55, 0xff}, draw.BoxGlyph{}, []vg.Length{vg.Points(5), vg.Points(3)}},    // grey
	looksToday:       {color.RGBA{0xd5, 0x5e, 0x00, 0xff}, draw.TriangleGlyph{}, nil},                                   // vermilion
	looksNothing:     {color.RGBA{0x00, 0x9e, 0x73, 0xff}, draw.PyramidGlyph{}, nil},                                    // green
	looksIdle:        {color.RGBA{0xcc, 0x79, 0xa7, 0xff}, draw.RingGlyph{}, []vg.Length{vg.Points(1.5), vg.Points(2)}}, // purple
}

// drawn puts the panels under each other and returns them as SVG.
func drawn(panels []panel, caption string) ([]byte, error) {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	plotter.DefaultFont = plot.DefaultFont
	height := topHeight + panelHeight*vg.Length(len(panels)) + margin
	canvas := vgsvg.New(width, height)
	all := draw.New(canvas)
	all.FillPolygon(color.White, []vg.Point{{X: 0, Y: 0}, {X: width, Y: 0}, {X: width, Y: height}, {X: 0, Y: height}})
	all = draw.Crop(all, margin, -margin, margin, -margin)
	say(all, 16, 0, "Growth with the number of objects")
	say(all, 9.5, 24*vg.Inch/96, caption+"; both axes are logarithmic")

	var plots [][]*plot.Plot
	for _, p := range panels {
		one, err := p.plot()
		if err != nil {
			return nil, err
		}
		plots = append(plots, []*plot.Plot{one})
	}
	body := draw.Crop(all, 0, -legendWidth, 0, -(topHeight - margin))
	tiles := draw.Tiles{Rows: len(plots), Cols: 1, PadY: 14 * vg.Inch / 96}
	for i, row := range plot.Align(plots, tiles, body) {
		row[0].SetColor(color.White)
		plots[i][0].Draw(row[0])
		if err := panels[i].legend(draw.Canvas{Canvas: row[0].Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: body.Max.X + margin, Y: row[0].Min.Y}, Max: vg.Point{X: all.Max.X, Y: row[0].Max.Y - 26*vg.Inch/96},
		}}); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return nil, err
	}
	// The library names one font; embedding it would take half a megabyte.
	return bytes.ReplaceAll(out.Bytes(), []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;")), nil
}

// say writes a line of text so far below the top.
func say(c draw.Canvas, size float64, below vg.Length, what string) {
	style := text.Style{Color: color.Black, Font: font.From(plot.DefaultFont, vg.Points(size)), XAlign: draw.XLeft, YAlign: draw.YTop, Handler: plot.DefaultTextHandler}
	c.FillText(style, vg.Point{X: c.Min.X, Y: c.Max.Y - below}, what)
}

func (p panel) plot() (*plot.Plot, error) {
	out := plot.New()
	out.Title.Text = p.title
	out.Title.TextStyle.Font.Size = vg.Points(12)
	out.Title.Padding = vg.Points(4)
	out.X.Label.Text, out.Y.Label.Text = "objects", p.unit
	for _, axis := range []*plot.Axis{&out.X, &out.Y} {
		axis.Scale, axis.Tick.Marker = plot.LogScale{}, decades{}
		axis.Tick.LineStyle.Color, axis.LineStyle.Color = color.Gray{0x66}, color.Gray{0x66}
		axis.Label.TextStyle.Font.Size, axis.Tick.Label.Font.Size = vg.Points(10), vg.Points(9)
		axis.Padding = 0
	}
	out.X.Tick.Marker = p.sizes()
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{0xcc}, color.Gray{0xcc}
	out.Add(grid)
	for _, l := range p.lines {
		drawing, marks, err := l.plotters()
		if err != nil {
			return nil, err
		}
		if marks != nil {
			out.Add(drawing, marks)
		}
	}
	out.X.Min, out.X.Max = around(out.X.Min, out.X.Max)
	out.Y.Min, out.Y.Max = around(out.Y.Min, out.Y.Max)
	return out, nil
}

// legend stands beside the plot, where it hides nothing.
func (p panel) legend(c draw.Canvas) error {
	legend := plot.NewLegend()
	legend.Top, legend.Left = true, true
	legend.ThumbnailWidth = vg.Points(28)
	legend.Padding = vg.Points(5)
	legend.TextStyle.Font.Size = vg.Points(9.5)
	for _, l := range p.lines {
		drawing, marks, err := l.plotters()
		if err != nil {
			return err
		}
		if marks != nil {
			legend.Add(l.name, drawing, marks)
		}
	}
	legend.Draw(c)
	return nil
}

// plotters are nil where nothing was measured.
func (l line) plotters() (*plotter.Line, *plotter.Scatter, error) {
	if len(l.points) == 0 {
		return nil, nil, nil
	}
	points := make(plotter.XYs, len(l.points))
	for i, p := range l.points {
		points[i] = plotter.XY{X: p[0], Y: p[1]}
	}
	drawing, marks, err := plotter.NewLinePoints(points)
	if err != nil {
		return nil, nil, err
	}
	k := looks[l.look]
	drawing.Color, drawing.Width, drawing.Dashes = k.color, vg.Points(1.8), k.dashes
	marks.Color, marks.Shape, marks.Radius = k.color, k.mark, vg.Points(3.5)
	return drawing, marks, nil
}

// around widens a logarithmic axis to the next ticks on both sides, and a little
// more, so that no mark stands on the border.
func around(low, high float64) (float64, float64) {
	all := decades{}.Ticks(low/5, high*5)
	from, to := low, high
	for _, t := range all {
		if t.Value <= low {
			from = t.Value
		}
		if t.Value >= high {
			to = t.Value
			break
		}
	}
	room := math.Pow(to/from, 0.03)
	return from / room, to * room
}

// sizes are the ticks at what was measured, labelled where there is room.
func (p panel) sizes() plot.ConstantTicks {
	var sizes []float64
	for _, l := range p.lines {
		for _, point := range l.points {
			sizes = append(sizes, point[0])
		}
	}
	slices.Sort(sizes)
	var ticks plot.ConstantTicks
	room := 0.0 // the next label may begin here
	for _, v := range slices.Compact(sizes) {
		tick := plot.Tick{Value: v}
		if v >= room {
			tick.Label, room = plain(v), v*1.6
		}
		ticks = append(ticks, tick)
	}
	return ticks
}

// decades puts ticks at 1, 2 and 5 of each power of ten.
type decades struct{}

func (decades) Ticks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for power := math.Floor(math.Log10(low)); power <= math.Ceil(math.Log10(high)); power++ {
		for _, digit := range []float64{1, 2, 5} {
			v := digit * math.Pow(10, power)
			if v < low || v > high {
				continue
			}
			label := plain(v)
			if digit != 1 && high/low > 300 { // no room for all
				label = ""
			}
			ticks = append(ticks, plot.Tick{Value: v, Label: label})
		}
	}
	return ticks
}

// plain is a number with commas between thousands.
func plain(v float64) string {
	whole, fraction, _ := strings.Cut(strconv.FormatFloat(v, 'f', -1, 64), ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if fraction != "" {
		whole += "." + fraction[:min(len(fraction), 3)]
	}
	return whole
}
