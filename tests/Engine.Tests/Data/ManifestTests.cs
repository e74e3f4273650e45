using LrIad.Engine.Config;
using LrIad.Engine.Data;

namespace LrIad.Engine.Tests.Data;

/// <summary>Lists of images.</summary>
internal sealed class ManifestTests
{
    private string _root = "";

    [SetUp]
    public void MakeImages()
    {
        _root = TestFiles.NewFolder();
        foreach (var name in new[] { "a.png", "b.png", "parts/c.png", "parts/with, comma.png" })
        {
            Pictures.WritePng(Path.Combine(_root, name));
        }
    }

    private DataSet Read(string name, string content, string split = "all") => ImageFolder.Read(new DataSource(Files.Write(Path.Combine(_root, name), content), Split: split));

    private string Fails(string name, string content) => Assert.Throws<InputException>(() => Read(name, content))!.Message;

    private (string, string, bool, string)[] Describe(DataSet data) =>
        [.. data.Samples.Select(sample => (Path.GetRelativePath(_root, sample.ImagePath), sample.Object, sample.Defect, sample.Split))];

    [Test]
    public void Csv()
    {
        var data = Read("list.csv", "\uFEFF\nImage_Path,Label,Object,Split,Mask\r\na.png,GOOD,nut,Train,\r\n\"parts/with, comma.png\",anomaly,\"a \"\"lid\"\"\",test,masks/x.png\n\nparts/c.png,1,,,\n");
        Assert.That(data.Layout, Is.EqualTo("manifest"));
        Assert.That(data.Problems, Is.Empty);
        Assert.That(Describe(data), Is.EqualTo(new[] { ("a.png", "nut", false, "train"), ("parts/c.png", "parts", true, "all"), ("parts/with, comma.png", "a \"lid\"", true, "test") }));
        Assert.That(Read("list.csv", "image,label,split\na.png,0,train\nb.png,1,test\n", "test").Samples, Has.Count.EqualTo(1));
    }

    [Test]
    public void JsonLines()
    {
        var data = Read("list.jsonl", "\n{\"image\":\"a.png\",\"label\":0,\"object\":\"nut\"}\n{\"image_path\":\"" + Path.Combine(_root, "b.png") + "\",\"label\":true,\"category\":\"lid\",\"split\":\"test\"}\n\n");
        Assert.That(Describe(data), Is.EqualTo(new[] { ("a.png", "nut", false, "all"), ("b.png", "lid", true, "test") }));
    }

    [Test]
    public void DefectsMayHaveNames()
    {
        var data = Read("list.csv", "image,label,defect_type\na.png,0,crack\nb.png,1,crack\nparts/c.png,1,\n");
        Assert.That(data.Samples.Select(sample => sample.DefectType), Is.EqualTo(new[] { null, "crack", null }), "that of a normal image says nothing");
    }

    [TestCase("normal", false)]
    [TestCase("good", false)]
    [TestCase("0", false)]
    [TestCase("False", false)]
    [TestCase(" defect ", true)]
    [TestCase("anomaly", true)]
    [TestCase("BAD", true)]
    [TestCase("1", true)]
    [TestCase("true", true)]
    public void Labels(string label, bool defect) => Assert.That(Read("list.csv", $"image,label\na.png,{label}\n").Samples.Single().Defect, Is.EqualTo(defect));

    [Test]
    public void WhatCannotBeUsedIsListedWithItsLine()
    {
        var data = Read("list.csv", "image,label\na.png,0\na.png,1\nmissing.png,0\nb.png,unsure\n,1\nparts/c.png\n./parts/../a.png,0\n");
        Assert.That(Describe(data), Has.Length.EqualTo(1));
        Assert.That(data.Problems.Select(problem => problem.Reason), Is.EqualTo(new[]
        {
            "line 3: it is listed twice", "line 4: the file does not exist", "line 5: 'unsure' is no known label (normal, good, 0 or defect, anomaly, 1)",
            "line 6: there is no field image or image_path or path", "line 7: there is no field label", "line 8: it is listed twice",
        }));
        Assert.That(Path.GetRelativePath(_root, data.Problems[1].ImagePath), Is.EqualTo("missing.png"));

        var json = Read("list.jsonl", "{\"image\":\"a.png\",\"label\":1}\n{\"image\":\"b\\u0000.png\",\"label\":1}\n{\"image\":null,\"label\":1}\n");
        Assert.That(json.Problems, Has.Count.EqualTo(2));
    }

    [Test]
    public void ManifestsThatAreNone()
    {
        Assert.That(Fails("empty.csv", ""), Does.Contain("is empty"));
        Assert.That(Fails("blank.csv", "\n  \n"), Does.Contain("is empty"));
        Assert.That(Fails("header.csv", "image,label\n"), Does.Contain("no labelled images"));
        Assert.That(Fails("semicolons.csv", "image;label\na.png;0\n"), Does.Contain("line 2: there is no field image"));
        Assert.That(Fails("nolabel.csv", "image,object\na.png,nut\n"), Does.Contain("line 2: there is no field label"));
        Assert.That(Fails("toomany.csv", "image,label\na.png,0,x\n"), Does.Contain("line 2: 3 fields"));
        Assert.That(Fails("broken.jsonl", "{\"image\":\"a.png\",\"label\":1}\n{\"image\":\n"), Does.Contain("line 2: not a JSON object"));
        Assert.That(Fails("twice.jsonl", "{\"image\":\"a.png\",\"image\":\"b.png\",\"label\":1}\n"), Does.Contain("line 1"));
        Assert.That(Assert.Throws<InputException>(() => ImageFolder.Read(new DataSource(_root, "manifest"))).Message, Does.Contain("manifest").And.Contain(_root));
    }
}
