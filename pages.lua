-- What pandoc leaves to do on the way from notebooks to pages (see `make html`).

-- It keeps a Markdown output as raw text, beside a plain-text stand-in for every rich output.
local function output(div)
  if not div.classes:includes("output") then return end
  local rich = pandoc.Blocks {}
  for _, block in ipairs(div.content) do
    if block.t == "RawBlock" and block.format == "markdown" then
      rich:extend(pandoc.read(block.text .. "\n", "gfm").blocks)
    elseif block.t ~= "CodeBlock" then
      rich:insert(block)
    end
  end
  if #rich > 0 then div.content = rich end
  return div
end

-- Links between notebooks and README lead from page to page, others from build/html to the files.
local function link(link)
  local target = link.target
  if target:match("^%a+:") or target:match("^#") then return end
  local folder = pandoc.path.directory(PANDOC_STATE.input_files[1])
  local path = pandoc.path.normalize(pandoc.path.join { folder, target }):gsub("[^/]+/%.%./", "")
  local page, anchor = path:match("([^/]+)%.ipynb(.*)$")
  if path:match("^README%.md") then page, anchor = "index", path:sub(10) end
  link.target = page and page .. ".html" .. anchor or "../../" .. path
  return link
end

-- Pictures on the network (badges) give way to their words.
local function image(image)
  if image.src:match("^https?:") then return image.caption end
end

return { { traverse = "topdown", Div = output, Link = link, Image = image } }
